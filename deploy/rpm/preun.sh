# $1: how many versions will be left. The socket first, or it would start the service again.
if [ "$1" -eq 0 ] && command -v systemctl >/dev/null 2>&1; then
    for unit in skmem-exporter.socket skmem-exporter.service; do
        systemctl --no-reload disable "$unit" >/dev/null 2>&1 || :
        if [ -d /run/systemd/system ]; then
            systemctl stop "$unit" >/dev/null 2>&1 || :
        fi
    done
fi
