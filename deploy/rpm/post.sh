# $1: how many versions are installed now. What is enabled is for the distribution's presets and the administrator to say.
if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null 2>&1 || :
fi
if [ "$1" -eq 1 ] && command -v systemctl >/dev/null 2>&1; then
    systemctl --no-reload preset skmem-exporter.service >/dev/null 2>&1 || :
fi
