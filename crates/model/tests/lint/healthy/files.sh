#!/bin/bash
set -euo pipefail
export BORG_REPO=/srv/borg/ledger BORG_PASSCOMMAND="cat /etc/borg/passphrase"
# The last copy of each month is kept.
borg create --compression zstd,6 ::{now} /srv/data/ledger
borg prune --keep-daily=14 --keep-monthly=6
sqlite3 /srv/data/app.db ".backup '/srv/backups/app-$(date +%F).db'"
systemctl stop registry
tar czf "/srv/backups/registry-$(date +%F).tgz" /var/lib/registry/registry.db
systemctl start registry
rsync -a /srv/backups/ vault.example.org:/srv/second/
