# $1: how many versions are left.
if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null 2>&1 || :
    if [ "$1" -ge 1 ]; then
        systemctl try-restart skmem-exporter.service >/dev/null 2>&1 || :
    fi
fi
# Packages made by cargo-generate-rpm own files and no directories.
if [ "$1" -eq 0 ]; then
    for directory in /usr/share/skmem-exporter/alerts /usr/share/skmem-exporter/dashboards /usr/share/skmem-exporter/systemd \
        /usr/share/skmem-exporter/scraping/targets /usr/share/skmem-exporter/scraping /usr/share/skmem-exporter \
        /usr/share/doc/skmem-exporter/docs/runbooks /usr/share/doc/skmem-exporter/docs /usr/share/doc/skmem-exporter \
        /usr/share/licenses/skmem-exporter; do
        rmdir "$directory" 2>/dev/null || :
    done
fi
