//! The linter: a document for each defect that has to be found, documents that have to be passed over in silence, and texts
//! that were made to hurt.

#![expect(clippy::unwrap_used, reason = "a test whose case cannot be set up must fail")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use seaworthy_model::config::{SourceText, parse};
use seaworthy_model::finding::FindingCode;
use seaworthy_model::lint::{Promises, Report, lint, render};

fn alone(name: &str, text: &str) -> Report {
    lint(&[SourceText::new(name, text)], None)
}

fn codes(report: &Report) -> Vec<&'static str> {
    report.defects.iter().map(|defect| defect.code.as_str()).collect()
}

/// The documents of a directory, in the order of their names.
fn documents(kind: &str) -> Vec<SourceText> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lint").join(kind);
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
        .iter()
        .map(|path| {
            SourceText::new(path.file_name().unwrap().to_str().unwrap(), fs::read_to_string(path).unwrap())
        })
        .collect()
}

#[test]
fn each_defect_of_the_list_is_found_in_its_document_and_nothing_else_is() {
    let documents = documents("bad");
    let mut numbers = BTreeSet::new();
    for document in &documents {
        // `d-05-live-sqlite.LN-06.LN-07.md`: the defect's number, and every code that has to be there.
        let mut parts: Vec<&str> = document.name.split('.').collect();
        parts.pop();
        let number: u32 = parts[0].split('-').nth(1).unwrap().parse().unwrap();
        numbers.insert(number);
        let wanted: BTreeSet<&str> = parts[1..].iter().copied().collect();
        let report = lint(std::slice::from_ref(document), None);
        let found: BTreeSet<&str> = codes(&report).into_iter().collect();
        let shown: String = report.defects.iter().map(|defect| render(defect, false)).collect();
        assert_eq!(found, wanted, "{}:\n{shown}", document.name);
    }
    let all: BTreeSet<u32> = (1..=32).collect();
    assert_eq!(numbers, all, "a document for each of D-1 to D-32");
}

#[test]
fn healthy_documents_are_passed_over_in_silence() {
    let documents = documents("healthy");
    assert!(documents.len() >= 8);
    // All together: what is between texts is asked too.
    let report = lint(&documents, None);
    let shown: String = report.defects.iter().map(|defect| render(defect, false)).collect();
    assert!(report.defects.is_empty(), "{shown}");
    assert!(report.idle.is_empty());
}

#[test]
fn every_rule_has_a_case_that_is_found() {
    let mut found: BTreeSet<FindingCode> = BTreeSet::new();
    for document in documents("bad") {
        found.extend(lint(&[document], None).defects.iter().map(|defect| defect.code));
    }
    for (name, text, code) in CASES {
        let report = alone(name, text);
        assert!(codes(&report).contains(code), "{code} is not found in {text:?}: {:?}", codes(&report));
        found.extend(report.defects.iter().map(|defect| defect.code));
    }
    // Found only with a configuration: see below.
    found.insert(FindingCode::LintPromiseDiffers);
    let missing: Vec<_> = FindingCode::ALL
        .iter()
        .filter(|code| code.as_str().starts_with("LN-") && !found.contains(code))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// A text and the code that has to be found in it.
const CASES: &[(&str, &str, &str)] = &[
    ("a.sh", "pg_restore -d new /b/x.dump.age", "LN-01"),
    ("a.sh", "sudo -u postgres zcat /b/x.sql.gz.gpg | psql new", "LN-01"),
    ("a.sh", "tar xzf /b/site.tar.gz.enc -C /srv", "LN-01"),
    ("a.sh", "docker compose exec -T db pg_restore -l /b/x.dump", "LN-02"),
    ("a.sh", "restic -r /b backup /srv\nrestic -r /b check", "LN-02"),
    ("a.sh", "pg_basebackup -D /b/base -z", "LN-03"),
    ("a.sh", "ssh db 'pg_basebackup -D /b -Fp -Z 5'", "LN-03"),
    ("a.sh", "pg_dump -j 4 -Fc -f /b/x-$(date +%F).dump shop", "LN-04"),
    ("a.sh", "cat /b/x.dump | pg_restore -j 4 -d new", "LN-04"),
    ("a.sh", "pg_dumpall -Fc > /b/all-$D.dump", "LN-04"),
    ("a.sh", "borg prune --encryption=repokey /b", "LN-04"),
    ("a.sh", "cat > $PGDATA/recovery.conf <<EOF\nrestore_command = 'x'\nEOF", "LN-05"),
    ("a.sh", "rsync -a /srv/app.sqlite3 nas:/backup/", "LN-06"),
    ("a.sh", "tar czf /backup/pg-$(date +%F).tgz /var/lib/postgresql/15/main", "LN-06"),
    ("a.sh", "sudo restic -r /b backup /var/lib/mysql && restic -r /b check --read-data", "LN-06"),
    ("a.sh", "docker run --rm -v app_pgdata:/data -v /backup:/out alpine tar czf /out/pg.tgz /data", "LN-06"),
    ("a.sh", "sqlite3 /var/lib/rancher/k3s/server/db/state.db \".backup '/backup/state.db'\"", "LN-07"),
    (
        "crontab",
        "0 3 * * 0 borg prune --keep-daily 7 /backup/repo\n0 3 * * * borg create /backup/repo::x /srv\n",
        "LN-09",
    ),
    ("crontab", "CRON_TZ=Europe/Berlin\n30 2 * * * /usr/local/bin/backup.sh\n", "LN-10"),
    ("restore.sh", "gunzip -c /backup/shop.sql.gz | psql shop", "LN-11"),
    ("restore.sh", "psql -1 -d shop < /backup/shop.sql", "LN-11"),
    ("restore.sh", "mysql --force shop < /backup/shop.sql", "LN-11"),
    ("restore.sh", "pg_restore --clean -d shop /backup/shop.dump", "LN-12"),
    ("restore.sh", "dropdb shop && createdb shop && pg_restore -d shop /backup/shop.dump", "LN-12"),
    (
        "restore.sh",
        "psql -c 'DROP DATABASE IF EXISTS shop;'\npsql -v ON_ERROR_STOP=1 -d shop -f /backup/shop.sql",
        "LN-12",
    ),
    ("a.sh", "rclone check --size-only /backup remote:backup", "LN-15"),
    ("backup.sh", "tar cz /srv | openssl enc -aes-256-cbc -pass file:/k -out /backup/x-$D.enc", "LN-16"),
    (
        "a.sh",
        "aws lightsail enable-add-on --resource-name x --add-on-request addOnType=AutoSnapshot,autoSnapshotAddOnRequest={snapshotTimeOfDay=06:30}",
        "LN-20",
    ),
    ("a.md", "The backup controls follow A.12.3.1 of the standard.", "LN-24"),
    ("a.sh", "mysqldump -u root -phunter2 --single-transaction shop > /b/shop-$D.sql", "LN-28"),
    ("a.sh", "pg_dump postgresql://backup:hunter2@db/shop -f /b/shop-$D.dump", "LN-28"),
    ("a.sh", "gpg --batch --passphrase \"$PASS\" -c x.dump", "LN-28"),
    ("a.sh", "vault operator unseal $KEY_1", "LN-28"),
    ("postgresql.conf", "archive_command = '/bin/true'\n", "LN-34"),
    (
        "a.yml",
        "command: [\"postgres\", \"-c\", \"archive_command=cp %p /wal/%f\"]\narchive_command: cp %p /wal/%f\n",
        "LN-34",
    ),
    ("clean.sh", "find /backup -name '*.dump' -mtime +30 -delete", "LN-36"),
    ("clean.sh", "find /srv/backups -type f -mtime +7 -exec rm {} \\;", "LN-36"),
    ("clean.sh", "find /b -name '*.sql.gz' -mtime +7 | xargs rm -f", "LN-36"),
    ("a.sh", "mysqldump shop | gzip > /b/shop-$D.sql.gz", "LN-37"),
    ("a.sh", "#!/bin/sh\npg_dump shop | gzip > /b/shop-$D.sql.gz", "LN-38"),
    ("a.yml", "jobs:\n  dump:\n    steps:\n      - run: pg_dump shop | gzip > shop-$D.sql.gz\n", "LN-38"),
    ("a.sh", "docker exec db pg_dump shop | gzip > /b/shop-$D.sql.gz", "LN-38"),
    ("a.sh", "pg_dump -Fc shop -f /b/shop-$D.dump || true", "LN-39"),
    ("a.sh", "{ pg_dump -Fc shop -f /b/shop-$D.dump; } || :", "LN-39"),
    ("crontab", "0 1 * * * /usr/local/bin/backup.sh >/dev/null 2>&1\n", "LN-39"),
    ("a.sh", "set +e\npg_dump -Fc shop -f /b/shop-$D.dump\necho done", "LN-39"),
    ("a.sh", "tar --ignore-failed-read -czf /backup/etc-$D.tgz /etc", "LN-39"),
    ("a.sh", "rsync -a --delete /srv/backups/ nas:/backups/", "LN-40"),
    ("a.sh", "aws s3 sync --delete /backups s3://offsite-backups", "LN-40"),
    ("a.sh", "rclone sync /backup remote:backup", "LN-40"),
    ("a.sh", "curl -k -T /backup/x.dump https://nas/backup/", "LN-41"),
    ("a.sh", "scp -o StrictHostKeyChecking=no /backup/x.dump nas:/backup/", "LN-41"),
    ("a.sh", "etcdctl snapshot save /b/etcd-$D.db", "LN-42"),
    ("a.sh", "cp /var/lib/redis/dump.rdb /b/redis-$D.rdb", "LN-42"),
    ("crontab", "0 1 * * * pg_dump -Fc shop -f /b/shop-$(date +%F).dump\n", "LN-43"),
    ("a.sh", "pg_dump -Fc shop > /b/shop.dump", "LN-44"),
    ("a.sh", "aws s3 cp /etc/app/backup.key s3://app-backups/", "LN-45"),
    ("a.sh", "pg_restore -d new /b/shop.sql", "LN-46"),
    ("main.tf", "resource \"aws_db_instance\" \"shop\" {\n  skip_final_snapshot = true\n}\n", "LN-47"),
    ("recovery.md", "## Restore\n\n```sh\ndocker compose down -v\n```\n", "LN-47"),
    ("a.sh", "# seaworthy: allow LN-44 because\npg_dump -Fc shop > /b/shop.dump", "LN-48"),
    ("a.sh", "# seaworthy: allow everything because we are brave\ntrue", "LN-48"),
    ("a.sh", "chmod 644 /etc/app/backup-encryption.key", "LN-49"),
];

/// Texts that look like the cases above and are right.
const HEALTHY: &[(&str, &str)] = &[
    ("a.sh", "gpg --decrypt /b/x.dump.gpg | pg_restore -d new"),
    ("a.sh", "pg_restore --list /b/x.dump\npg_restore --exit-on-error -d scratch /b/x.dump"),
    ("a.sh", "pg_restore -l /b/x.dump > /tmp/toc\npg_restore -L /tmp/toc -f - /b/x.dump"),
    ("a.sh", "pg_basebackup -Ft --compress=gzip -D /b/base-$D"),
    ("a.sh", "pg_basebackup -D /b/base-$D --compress=server-zstd\npg_basebackup -D /b/plain-$D -Z 0"),
    ("a.sh", "pg_dump -Fd -j 4 -f /b/dir-$D shop\npg_restore -j 4 -d new /b/dir-$D"),
    ("a.sh", "borg init --encryption=repokey /b\nborg create --compression zstd,6 /b::{now} /srv"),
    ("a.md", "PostgreSQL 12 removed `recovery.conf`; make an empty `recovery.signal` instead."),
    ("a.sh", "systemctl stop app\ncp /srv/app.db /backup/app.db\nsystemctl start app"),
    ("a.sh", "sqlite3 /srv/app.db \".backup '/backup/app.db'\"\ncp /backup/app.db /mnt/nas/backup/"),
    (
        "a.sh",
        "docker compose stop db\ndocker run --rm -v app_pgdata:/data -v /backup:/out alpine tar czf /out/pg.tgz /data",
    ),
    ("a.sh", "docker run --rm -v app_pgdata:/data -v /backup:/in alpine tar xzf /in/pg.tgz -C /data"),
    ("a.sh", "cp /etc/postfix/aliases.db /backup/"),
    ("a.sh", "cp fixtures/sample.db build/sample.db"),
    ("a.sh", "tar czf /backup/conf.tgz /etc/postgresql /etc/mysql"),
    ("a.sh", "cp -r /var/lib/rancher/k3s/server/token /backup/token"),
    ("crontab", "0 3 * * * borg create /backup/a::x /srv\n0 3 * * * borg create /backup/b::x /home\n"),
    ("crontab", "CRON_TZ=UTC\n30 2 * * * /usr/local/bin/backup.sh\n"),
    ("crontab", "CRON_TZ=Europe/Berlin\n30 4 * * * /usr/local/bin/backup.sh\n"),
    ("restore.sh", "psql -v ON_ERROR_STOP=1 --single-transaction -d shop_restored < /backup/shop.sql"),
    ("restore.sh", "set -e\npsql -d shop -c 'SELECT 1'\npsql -Atc 'SELECT count(*) FROM t' shop"),
    ("a.sh", "psql -f schema.sql app_dev"),
    ("restore.sh", "pg_restore --clean --if-exists -d shop_restore_test /backup/shop.dump"),
    (
        "restore.sh",
        "dropdb --if-exists restore_test\ncreatedb restore_test\npg_restore -d restore_test /backup/x.dump",
    ),
    (
        "restore.sh",
        "n=$(psql -Atc 'SELECT COUNT(*) FROM orders' new)\npg_restore -d new x.dump\n[ \"$(psql -Atc 'SELECT COUNT(*) FROM orders' new)\" -eq \"$EXPECTED\" ]",
    ),
    ("a.sh", "cat logs/*.ndjson | tail -n 1 | jq ."),
    ("a.sh", "ls -t reports/*.json | head -n 1 | xargs cat | jq ."),
    ("a.sh", "rclone check /backup remote:backup"),
    ("a.sh", "set -o pipefail\ntar cz /srv | age -r age1xyz -o /backup/x-$D.age"),
    ("a.sh", "openssl enc -d -aes-256-cbc -pass file:/k -in /backup/x.enc -out x"),
    (
        "a.sh",
        "aws lightsail enable-add-on --add-on-request addOnType=AutoSnapshot,autoSnapshotAddOnRequest={snapshotTimeOfDay=06:00}",
    ),
    ("a.sh", "PGPASSWORD=\"$PW\" pg_dump -Fc shop -f /b/shop-$D.dump"),
    (
        "a.sh",
        "mysql -u root -p shop\nmysqldump --defaults-extra-file=/etc/my.cnf --single-transaction shop > /b/shop-$D.sql",
    ),
    (
        "a.sh",
        "psql postgres://postgres:postgres@localhost/test -c 'select 1'\ncurl -u \"$USER\" https://x/backup",
    ),
    ("a.sh", "vault operator unseal\nvault login -method=oidc\nvault operator unseal -"),
    ("postgresql.conf", "archive_command = 'pgbackrest --stanza=main archive-push %p'\n"),
    (
        "postgresql.conf",
        "#archive_command = 'cp %p /wal/%f'\narchive_command = 'cp %p /wal/%f.tmp && sync /wal/%f.tmp && mv /wal/%f.tmp /wal/%f'\n",
    ),
    ("clean.sh", "find /var/log -name '*.log' -mtime +30 -delete"),
    (
        "clean.sh",
        "find /backup -mtime -1 -name '*.dump' | grep -q . || exit 1\nfind /backup -name '*.dump' -mtime +30 -delete",
    ),
    ("clean.sh", "/usr/local/bin/backup.sh && find /backup -name '*.dump' -mtime +30 -delete"),
    (
        "clean.sh",
        "set -euo pipefail\npg_dump -Fc shop -f /b/shop-$D.dump\nfind /b -name '*.dump' -mtime +30 -delete",
    ),
    ("clean.sh", "ls -t /backup/*.dump | tail -n +8 | xargs -r rm"),
    (
        "a.sh",
        "mysqldump --single-transaction shop > /b/shop-$D.sql\nmysqldump --no-data shop > /b/schema-$D.sql",
    ),
    ("a.sh", "#!/bin/bash\nset -euo pipefail\npg_dump shop | gzip > /b/shop-$D.sql.gz"),
    ("a.md", "```sh\npg_dump shop | gzip > shop.sql.gz\n```"),
    ("a.yml", "steps:\n  - shell: bash\n    run: pg_dump shop | gzip > shop-$D.sql.gz\n"),
    ("a.sh", "rm -f /tmp/x || true\ndropdb --if-exists scratch || true\npg_dump --version >/dev/null 2>&1"),
    ("a.sh", "if ! pg_dump -Fc shop -f /b/shop-$D.dump 2>/dev/null; then exit 1; fi"),
    ("crontab", "0 1 * * * /usr/local/bin/backup.sh >> /var/log/backup.log 2>&1\n"),
    ("a.sh", "set +e\npg_dump -Fc shop -f /b/shop-$D.dump\nrc=$?\nset -e\n[ $rc -eq 0 ]"),
    (
        "a.sh",
        "rsync -a --delete dist/ web:/var/www\nrsync -a --delete --backup-dir=/gone /backup/ nas:/backup/",
    ),
    ("a.sh", "rsync -a --delete /backup/site/ /srv/site/"),
    ("a.sh", "rclone copy /backup remote:backup\naws s3 sync /backup s3://offsite"),
    ("a.sh", "curl -k https://localhost:3001/health"),
    ("a.sh", "etcdctl snapshot save /b/e-$D.db\netcdutl snapshot status /b/e-$D.db"),
    ("a.sh", "redis-cli --rdb /b/redis-$D.rdb"),
    ("crontab", "0 1 * * * pg_dump -Fc shop -f /b/shop-$(date +\\%F).dump\n"),
    ("a.sh", "pg_dump -Fc shop > /b/shop.dump.new\nmv /b/shop.dump.new /b/shop.dump"),
    (
        "a.sh",
        "pg_dump -Fc shop > /var/spool/shop.dump\nrestic -r /b backup /var/spool/shop.dump && restic -r /b check --read-data-subset 5%",
    ),
    ("a.sh", "cp /secure/backup.key /etc/app/\nchmod 600 /etc/app/backup.key\nscp backup.pub nas:/backup/"),
    ("a.sh", "psql --set ON_ERROR_STOP=1 -d new -f /b/shop.sql\npg_restore -d new /b/shop.dump"),
    (
        "main.tf",
        "resource \"aws_db_instance\" \"shop\" {\n  skip_final_snapshot = false\n  backup_retention_period = 7\n}\nresource \"aws_s3_bucket\" \"website\" {\n  force_destroy = true\n}\n",
    ),
    (".github/workflows/test.yml", "steps:\n  - run: docker compose down -v\n"),
    ("a.md", "Never use `rsync --delete /backup/ nas:/backup/`: it follows deletions."),
    ("a.md", "Do not do this:\n\n```sh\npg_basebackup -D /b -z\n```\n"),
    ("a.md", "A `cp` of a database is no backup, and `pg_restore --list` is not a test."),
    (
        "a.md",
        "A.5.29 Information security during disruption, A.5.30 ICT readiness for business continuity, A.8.13",
    ),
    ("a.md", "| step | result |\n|---|---|\n| restore | FAIL |\n\n**Overall: FAIL**\n"),
    (
        "a.md",
        "Offsite: the NAS in the other building, over a remote tunnel.\nThe NAS has no offsite copy yet.\n",
    ),
    ("a.md", "Backups run daily at 02:00 UTC, and at 4am CET. The service listens on 10.0.0.1:80.\n"),
    ("a.md", "Last test: 2025-11-26\nNext test: 2026-02-24 (90 days from last test)\n"),
    (
        "a.md",
        "| Drill | Frequency |\n|---|---|\n| restore drill | monthly |\n| failover drill | quarterly |\n",
    ),
    ("a.md", "- Duration: 25 minutes\n- RTO validated: 30 minutes\n\nThe drill restored the database.\n"),
    ("a.md", "RETENTION: infinite (git history). Copies older than 90 days are removed from the disk."),
    (
        "a.yml",
        "steps:\n  - run: mysql -h 127.0.0.1 -uroot -proot -e 'CREATE DATABASE a'\n  - run: pg_dump shop > dump.sql\n",
    ),
    ("a.md", "RTO: 25 minutes, tested in March ✓\n\nA restore drill should be run every month.\n"),
    ("a.md", "Backups stay within the EU, never in us-east-1.\n"),
    ("deploy.env", "S3_REGION=us-east-1\nPGHOST=localhost\n"),
];

#[test]
fn healthy_variations_are_passed_over_in_silence() {
    let mut wrong = String::new();
    for (name, text) in HEALTHY {
        for defect in alone(name, text).defects {
            wrong.push_str(&format!("{text:?}\n{}\n", render(&defect, false)));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_command_is_known_behind_whatever_starts_it() {
    let bad = "pg_basebackup -D /b -z";
    for line in [
        "sudo -u postgres CMD",
        "sudo -E PGUSER=x CMD",
        "env PGHOST=db nice -n 10 ionice -c2 -n7 CMD",
        "nohup time CMD &",
        "timeout -k 5 1h CMD",
        "flock -n /run/b.lock CMD",
        "PGHOST=db CMD",
        "/usr/lib/postgresql/15/bin/CMD",
        "docker exec -u postgres -e A=b db CMD",
        "docker compose -f prod.yml exec -T db CMD",
        "docker-compose exec db CMD",
        "docker run --rm -v /b:/b postgres:15 CMD",
        "kubectl -n shop exec deploy/db -c pg -- CMD",
        "ssh -i key -p 22 root@db 'CMD'",
        "ssh root@db sudo -u postgres CMD",
        "su - postgres -c 'CMD'",
        "bash -lc \"cd / && CMD\"",
        "ssh db <<'EOF'\ncd /\nCMD\nEOF",
        "if ! CMD; then exit 1; fi",
        "for d in a b; do CMD; done",
        "x=$(CMD)",
        "backup() { CMD; }",
        "true && CMD || exit 1",
        "echo start; (cd / && CMD)",
        "kubectl exec db -- sh -c 'ssh x \"CMD\"'",
        "find . -name x | xargs -n 1 CMD",
    ] {
        let text = line.replace("CMD", bad);
        assert_eq!(codes(&alone("a.sh", &text)), ["LN-03"], "{text}");
    }
    for (name, text) in [
        (
            "a.yml",
            "jobs:\n  a:\n    steps:\n      - run: |\n          echo a\n          pg_basebackup -D /b -z\n",
        ),
        ("a.yml", "spec:\n  containers:\n    - command: [\"/bin/sh\", \"-c\", \"pg_basebackup -D /b -z\"]\n"),
        ("a.yml", "spec:\n  command:\n    - pg_basebackup\n    - -D\n    - /b\n    - -z\n  name: x\n"),
        ("a.yml", "job:\n  script:\n    - echo a\n    - pg_basebackup -D /b -z\n"),
        ("a.yml", "command:\n  - sh\n  - -c\n  - |\n    pg_basebackup -D /b -z\n"),
        ("a.service", "[Service]\nExecStart=/usr/bin/pg_basebackup -D /b -z\n"),
        ("Makefile", "backup:\n\tpg_basebackup -D /b -z\n"),
        ("crontab", "# m h\n0 1 * * * postgres pg_basebackup -D /b -z\n"),
        ("a.md", "Run `pg_basebackup -D /b -z` at night."),
        ("a.md", "1. Back up\n\n    pg_basebackup -D /b -z\n"),
        ("a.md", "> ```console\n> $ pg_basebackup -D /b -z\n> done\n> ```\n"),
        ("a.txt", "RUN: pg_basebackup \\\n-D /b \\\n-z\n"),
        ("a.md", "~~~\npg_basebackup -D /b \\\n  -z\n~~~\n"),
    ] {
        assert_eq!(codes(&alone(name, text)), ["LN-03"], "{name}: {text}");
    }
    for silent in [
        "# pg_basebackup -D /b -z",
        "echo 'pg_basebackup -D /b -z'",
        "cat <<EOF\npg_basebackup -D /b -z\nEOF",
        "grep pg_basebackup -z /etc/x",
        "man pg_basebackup",
    ] {
        assert!(codes(&alone("a.sh", silent)).is_empty(), "{silent}");
    }
}

#[test]
fn a_place_is_where_an_editor_would_jump_to() {
    let text = "# Größe\n\n- run:\n\n  ```sh\n  échö a && \\\n    pg_basebackup -D /b -z\n  ```\n";
    let report = alone("docs/a.md", text);
    let defect = &report.defects[0];
    assert_eq!((defect.place.line, defect.place.column, defect.place.length), (7, 5, 22));
    let shown = render(defect, false);
    assert!(shown.starts_with("docs/a.md:7:5: critical[LN-03]: "), "{shown}");
    assert!(shown.contains("7 |     pg_basebackup -D /b -z\n  |     ^^^^^^^^^^^^^^^^^^^^^^\n"), "{shown}");
    assert!(shown.contains("  why: ") && shown.contains("  fix: "), "{shown}");
    assert!(render(defect, true).contains("\u{1b}["));
}

#[test]
fn an_exception_needs_a_code_and_a_reason_and_says_when_it_is_over() {
    let bad = "pg_basebackup -D /b -z";
    for allowed in [
        format!("# seaworthy: allow LN-03 because the server is 14\n{bad}\n"),
        format!("{bad} # seaworthy: allow LN-03 because the server is 14\n"),
        format!("# seaworthy: allow LN-04, LN-03 because the server is 14\n\n{bad}\n"),
        "# seaworthy: allow LN-03 because old\npg_basebackup \\\n  -D /b \\\n  -z\n".to_owned(),
    ] {
        let report = alone("a.sh", &allowed);
        assert_eq!((report.defects.len(), report.allowed.len()), (0, 1), "{allowed}");
        assert!(report.idle.is_empty());
    }
    let page = format!(
        "<!-- seaworthy: allow LN-03 because it is shown, not run -->\n\n```sh\n{bad}\n\n{bad}\n```\n\n```sh\n{bad}\n```\n"
    );
    let report = alone("a.md", &page);
    assert_eq!((report.defects.len(), report.allowed.len()), (1, 2));
    assert_eq!(report.allowed[0].reason, "it is shown, not run");

    let without = alone("a.sh", &format!("# seaworthy: allow LN-03\n{bad}\n"));
    assert_eq!(codes(&without), ["LN-48", "LN-03"]);
    let far = alone("a.sh", &format!("# seaworthy: allow LN-03 because the server is 14\necho\n{bad}\n"));
    assert_eq!((codes(&far), far.idle.len()), (vec!["LN-03"], 1));
    let mention = alone("a.sh", &format!("echo 'seaworthy: allow LN-03 because x y z'\n{bad}\n"));
    assert_eq!(codes(&mention), ["LN-03"]);
}

#[test]
fn no_secret_of_a_text_is_repeated() {
    const CANARY: &str = "hunter2-canary";
    for (name, text) in [
        ("a.sh", format!("mysqldump --single-transaction -p{CANARY} shop > /b/x.sql")),
        ("a.sh", format!("mysql --password={CANARY} --force shop < /backup/x.sql")),
        ("a.sh", format!("gpg --passphrase '{CANARY}' -c x")),
        ("a.sh", format!("pg_restore --clean -d postgres://u:{CANARY}@h/shop /backup/x.dump")),
        ("a.sh", format!("pg_dump 'host=h user=u password={CANARY} dbname=shop' > /b/x.sql")),
        ("a.sh", format!("curl -k -u u:{CANARY} -T x https://h/backup/")),
        ("a.md", format!("```\nPASSWORD={CANARY} pg_basebackup -D /b -z\n```")),
        ("a.sh", format!("openssl enc -aes-256-cbc -pass pass:{CANARY} -in /backup/a.tar -out b")),
    ] {
        let report = alone(name, &text);
        assert!(!report.defects.is_empty(), "{text}");
        let shown: String = report.defects.iter().map(|defect| render(defect, false)).collect();
        let json = serde_json::to_string(&report).unwrap();
        assert!(!shown.contains(CANARY) && !json.contains(CANARY), "{shown}\n{json}");
    }
}

const CONFIGURATION: &str = r#"
[repositories.local]
location = "/backup"
password = "file:/etc/seaworthy/password"
region = "us-east-1"

[services.vault]
owner = "ops"
tier = "critical"
rto = "1h"
rpo = "1h"
repositories = ["local"]
[services.vault.schedule]
cron = "0 * * * *"
zone = "UTC"
[services.vault.sources.files]
kind = "files"
paths = ["/srv/vault"]

[services.shop]
owner = "ops"
tier = "critical"
rto = "1h"
rpo = "1h"
depends_on = ["vault"]
repositories = ["local"]
[services.shop.schedule]
cron = "0 * * * *"
zone = "UTC"
[services.shop.sources.files]
kind = "files"
paths = ["/srv/shop"]

[services.wiki]
owner = "ops"
tier = "standard"
rto = "4h"
depends_on = ["vault"]
repositories = ["local"]
[services.wiki.sources.files]
kind = "files"
paths = ["/srv/wiki"]
"#;

fn with_configuration(texts: &[SourceText]) -> Report {
    let configuration = [SourceText::new("/etc/seaworthy.toml", CONFIGURATION)];
    let parsed = parse(&configuration).unwrap();
    lint(
        texts,
        Some(Promises { inventory: &parsed.inventory, origins: &parsed.origins, texts: &configuration }),
    )
}

#[test]
fn a_promise_that_is_shorter_than_what_comes_first_is_found_in_the_configuration() {
    let report = with_configuration(&[]);
    // The wiki has three hours left after the vault: that is enough to be silent about.
    assert_eq!(codes(&report), ["LN-23"]);
    let defect = &report.defects[0];
    assert_eq!(defect.subject, "shop");
    assert_eq!(CONFIGURATION.lines().nth(defect.place.line - 1).unwrap(), "rto = \"1h\"");
    assert!(defect.why.contains("vault (1 h)"), "{}", defect.why);
}

#[test]
fn a_document_that_promises_otherwise_than_the_configuration_is_found() {
    let page = "| Service | RPO | RTO |\n|---|---|---|\n| shop | 1 hour | 30 min |\n| wiki | 24 hours | 4h |\n| other | 1h | 1h |\n\nEU only.\n";
    let report = with_configuration(&[SourceText::new("bcp.md", page)]);
    assert_eq!(codes(&report), ["LN-50", "LN-27", "LN-23"]);
    assert_eq!(
        (report.defects[0].place.line, report.defects[0].related[0].file.as_str()),
        (3, "/etc/seaworthy.toml")
    );
    // Without a configuration there is nothing to compare with.
    assert!(alone("bcp.md", page).defects.is_empty());
}

#[test]
fn texts_that_were_made_to_hurt_end_in_time_and_say_no_more_than_they_should() {
    let kilobytes = 64;
    let pieces = [
        "$(",
        "\"$(",
        "`",
        "'",
        "\"",
        "${",
        "<<A\n",
        "((",
        "|",
        "<a",
        "`cp a.db /backup` ",
        "cp a.db /backup;",
        "2am CET ",
        "| ",
        "```\n",
        "> ",
        "ssh h '",
        "\\",
        "\0",
        "é",
        "\u{202e}",
        "archive_command = cp %p ",
        "0 1 * * * ",
        "- |\n",
        "pg_dump |",
        "rto 1h ✓ ",
        "2026-02-25 (90 days) ",
        "cast send --private-key X;",
        "secrets.AWS_ACCESS_KEY ",
        "seaworthy: allow ",
        "# ",
        "us-east-1 ",
        "sh -c \"",
        "row count expected ",
        "restore.sh latest;",
        "find /backup -mtime +1 -delete;",
        "A.5.29 ",
        "pg_restore -l x;",
        "redis 'cp dump.rdb b';",
    ];
    for piece in pieces {
        let text = piece.repeat(kilobytes * 1024 / piece.len());
        for name in ["a.md", "a.sh", "a.yml", "crontab"] {
            // Whatever it finds, it comes back: the suite's own limit is what a loop without an end runs into.
            let report = alone(name, &text);
            assert!(report.defects.len() <= 500, "{piece:?} in {name}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_text_makes_it_panic_and_every_place_is_in_its_text(
        parts in prop::collection::vec(prop::sample::select(vec![
            "pg_dump", "pg_restore", "psql", "cp", "borg", "find", "-mtime", "+3", "-delete", "/backup/a.db", "x.sql.gz", "|", "||", "&&", ";", "\n", " ",
            " ", " ", "'", "\"", "$(", ")", "`", "\\", "<<EOF\n", "EOF\n", "<", ">", "2>&1", "#", "```\n", "```sh\n", "- run: |\n", "  ", "\t", "| a | b |\n",
            "é", "\0", "\r\n", "0 2 * * * ", "%", "2am CET", "2026-02-25", "90 days", "ssh h ", "docker exec db ", "--", "-c ", "{", "}", "if ", "RUN: ", "\u{202e}",
            "| rto | rpo |\n", "1h", "offsite", "NAS", "seaworthy: allow LN-06 because x y z",
        ]), 0..60),
        name in prop::sample::select(vec!["a.md", "a.sh", "a.yml", "crontab", "a.tf", "x.service", "Makefile", "a.env"]),
    ) {
        let text: String = parts.concat();
        let report = alone(name, &text);
        for defect in &report.defects {
            prop_assert!(defect.place.line <= text.lines().count().max(1));
            prop_assert!(!defect.message.is_empty() && !defect.why.is_empty() && !defect.fix.is_empty(), "{:?}", defect);
            let shown = render(defect, false);
            let is_clean = !shown.contains(['\0', '\u{202e}']);
            prop_assert!(is_clean, "a control character reaches the terminal");
        }
        // The same text has the same defects, wherever it stands among others.
        let other = SourceText::new("other.md", "nothing\n");
        let beside = lint(&[other, SourceText::new(name, text.clone())], None);
        prop_assert_eq!(codes(&report), codes(&beside));
    }
}
