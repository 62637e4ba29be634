//! Secrets where others can read them, and keys beside what they open.

use std::ops::Range;

use super::{all, quoted, stands_among_copies};
use crate::finding::FindingCode;
use crate::lint::call::Call;
use crate::lint::read::{Document, Kind, Origin};
use crate::lint::shell::Word;
use crate::lint::words::{find_word, is_refusal};
use crate::lint::{Draft, Out};

pub(super) fn apply(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    arguments(text, document, out);
    key_beside_access(text, document, out);
    test_on_live_server(text, document, out);
    cipher(text, document, out);
    one_key_for_many(text, document, out);
}

/// The word that holds a secret, and where in it the secret begins.
struct Exposed<'c> {
    word: &'c Word,
    prefix: usize,
    fix: &'static str,
}

fn option_value<'c>(call: &'c Call, names: &[&str], fix: &'static str) -> Option<Exposed<'c>> {
    for (index, word) in call.words.iter().enumerate() {
        for name in names {
            if word.text == *name {
                let value = call.words.get(index + 1)?;
                return (!value.text.starts_with('-') && !value.text.is_empty()).then_some(Exposed {
                    word: value,
                    prefix: 0,
                    fix,
                });
            }
            if let Some(value) = word.text.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
                return (!value.is_empty()).then_some(Exposed { word, prefix: name.len() + 1, fix });
            }
        }
    }
    None
}

fn exposed(call: &Call) -> Option<Exposed<'_>> {
    const MYSQL: &str = "a file with mode 600: --defaults-extra-file=FILE before all other options";
    match call.program.as_str() {
        "mysql" | "mysqldump" | "mariadb" | "mariadb-dump" | "mysqladmin" | "mariabackup" | "xtrabackup" => {
            option_value(call, &["--password"], MYSQL).or_else(|| {
                call.words
                    .iter()
                    .find(|word| {
                        word.text.len() > 2 && word.text.starts_with("-p") && !word.text.starts_with("--")
                    })
                    .map(|word| Exposed { word, prefix: 2, fix: MYSQL })
            })
        }
        "mongodump" | "mongorestore" | "mongosh" | "mongo" => {
            option_value(call, &["--password", "-p"], "--config=FILE with mode 600")
        }
        "redis-cli" => option_value(call, &["-a", "--pass"], "REDISCLI_AUTH in the environment"),
        "cast" | "forge" => option_value(
            call,
            &["--private-key", "--mnemonic"],
            "--account NAME (a keystore), --ledger or --trezor",
        ),
        "gpg" | "gpg2" => option_value(
            call,
            &["--passphrase"],
            "--batch --pinentry-mode loopback --passphrase-file FILE; or encrypt to a public key",
        ),
        "sshpass" => option_value(call, &["-p"], "a key: ssh -i FILE; or sshpass -f FILE"),
        "openssl" => {
            option_value(call, &["-k"], "-pass file:FILE").filter(|_| call.says(&["enc"])).or_else(|| {
                call.words.iter().find(|word| word.text.starts_with("pass:")).map(|word| Exposed {
                    word,
                    prefix: 5,
                    fix: "-pass file:FILE, or -pass env:NAME",
                })
            })
        }
        "curl" => {
            option_value(call, &["-u", "--user"], "--netrc-file FILE, or --config FILE").filter(|found| {
                found.word.text.split_once(':').is_some_and(|(_, password)| !password.is_empty())
            })
        }
        "az" | "azcopy" => option_value(
            call,
            &["--account-key", "--sas-token", "--connection-string"],
            "AZURE_STORAGE_KEY in the environment, or --auth-mode login",
        ),
        "vault" | "bao" if call.says(&["operator", "unseal"]) || call.says(&["login"]) => {
            let skip = if call.says(&["login"]) { 1 } else { 2 };
            call.words
                .iter()
                .filter(|word| !word.text.starts_with('-'))
                .nth(skip)
                .filter(|word| !word.text.contains('=') && word.text != "-")
                .map(|word| Exposed {
                    word,
                    prefix: 0,
                    fix: "leave it out: vault asks for it; or hand it in with `-`",
                })
        }
        "zip" => option_value(call, &["-P", "--password"], "gpg or age instead"),
        "psql" | "pg_dump" | "pg_dumpall" | "pg_restore" | "pg_basebackup" | "createdb" | "dropdb" => {
            url(call)
        }
        _ => None,
    }
}

/// A password in a connection URL or string.
fn url(call: &Call) -> Option<Exposed<'_>> {
    const FIX: &str = "PGPASSFILE=FILE (mode 600), or ~/.pgpass; leave the password out of the URL";
    call.words.iter().find_map(|word| {
        if let Some(at) = word.text.find("://") {
            let authority = word.text.get(at + 3..)?.split(['/', '?']).next()?;
            let (login, _) = authority.rsplit_once('@')?;
            let (user, password) = login.split_once(':')?;
            // `postgres:postgres@` is what examples say.
            return (!password.is_empty() && user != password).then_some(Exposed {
                word,
                prefix: at + 3 + user.len() + 1,
                fix: FIX,
            });
        }
        let at = find_word(&word.text, "password")?;
        let value = word.text.get(at + 8..)?.strip_prefix('=')?;
        (!value.is_empty() && word.text.contains('=')).then_some(Exposed { word, prefix: at + 9, fix: FIX })
    })
}

fn arguments(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    for (_, _, _, call) in all(document) {
        let Some(found) = exposed(call) else { continue };
        if document.kind == Kind::Prose && document.refuses(document.line_of(found.word.span.start)) {
            continue;
        }
        // What is written out in a workflow is the password of its own test server.
        if document.kind == Kind::Yaml && !found.word.has_expansion {
            continue;
        }
        let span = found.word.span.clone();
        // From where the secret begins; a quote before it moves that by one, which hides one character more.
        let secret: Range<usize> = (span.start + found.prefix).min(span.end)..span.end;
        let is_variable = found.word.text.get(found.prefix..).is_some_and(|value| value.starts_with('$'));
        let draft = Draft::new(FindingCode::LintSecretInArguments, text, span, &call.program)
            .says(format!("`{}` is given a secret as an argument", call.program))
            .because("arguments are in the process list, which every user of the machine can read (`ps`), in shell histories and in audit logs; a variable is expanded before that")
            .mend(found.fix);
        if is_variable { draft } else { draft.hide(secret) }.report(out);
    }
}

/// Names of a workflow's secrets on a line: `secrets.NAME`.
fn secret_names(line: &str) -> Vec<(Range<usize>, String)> {
    line.match_indices("secrets.")
        .map(|(at, start)| {
            let name: String = line
                .get(at + start.len()..)
                .unwrap_or_default()
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            (at..at + start.len() + name.len(), name.to_ascii_uppercase())
        })
        .collect()
}

fn key_beside_access(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    if !document.text.contains("secrets.") {
        return;
    }
    let (mut key, mut access) = (None, None);
    for index in 0..document.lines.len() {
        let start = document.lines.get(index).map_or(0, |line| line.span.start);
        for (span, name) in secret_names(document.line(index)) {
            let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
            let is_key = has(&["BACKUP", "ENCRYPTION", "RESTIC", "BORG", "KOPIA", "ARCHIVE"])
                && has(&["KEY", "PASS"])
                && !has(&["PUBLIC", "RECIPIENT", "KEY_ID", "ACCESS", "FINGERPRINT"]);
            let is_access = has(&[
                "ACCESS_KEY",
                "AWS_SECRET",
                "GCS",
                "GCP",
                "GOOGLE",
                "AZURE",
                "STORAGE",
                "S3_",
                "POSTGRES_PASS",
                "DB_PASS",
                "DATABASE_URL",
                "MYSQL_PASS",
                "PGPASS",
            ]) && !is_key;
            let place = start + span.start..start + span.end;
            if is_key && key.is_none() {
                key = Some((place.clone(), name.clone()));
            }
            if is_access && access.is_none() {
                access = Some((place, name));
            }
        }
    }
    if let (Some((key, name)), Some((access, other))) = (key, access) {
        Draft::new(FindingCode::LintKeyBesideAccess, text, key, &name)
            .says(format!("whoever may change this workflow has the key of the copies ({name}) and the way to them ({other})"))
            .because("one stolen account, or one merged change, reads and removes every copy; with a public key it could only add some")
            .mend("encrypt to a public key in the workflow; keep the private key, and tests that need it, on a machine of their own")
            .with(text, access, format!("{other} is in the same workflow"))
            .report(out);
    }
}

/// A run of lines that belong together: a block of code, or a whole file that is none.
fn test_on_live_server(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    const HOSTS: [&str; 6] = ["postgres_host", "pghost", "db_host", "mysql_host", "database_host", "pg_host"];
    let mut start = 0;
    while start < document.lines.len() {
        let mut end = document.lines.len();
        if document.kind == Kind::Prose {
            let is_code = |index: usize| document.lines.get(index).is_some_and(|line| line.is_code);
            if !is_code(start) {
                start += 1;
                continue;
            }
            // A fence ends one block, and the next one begins behind it.
            end = (start + 1..document.lines.len())
                .find(|index| !is_code(*index) || document.line(*index).trim_start().starts_with("```"))
                .unwrap_or(end);
        }
        let block = document
            .lines
            .get(start)
            .zip(document.lines.get(end.saturating_sub(1)))
            .and_then(|(first, last)| document.lower.get(first.span.start..last.span.end))
            .unwrap_or_default();
        let tests = [
            "restore-test",
            "restore_test",
            "restore test",
            "test-restore",
            "test_restore",
            "test restore",
            "-restore.sh",
            "restore-drill",
            "restore drill",
        ]
        .iter()
        .any(|word| block.contains(word));
        let has_own = block.contains("services:")
            && ["image: postgres", "image: mysql", "image: mariadb", "image: \"postgres", "image: docker.io"]
                .iter()
                .any(|image| block.contains(image))
            || block.contains("initdb")
            || block.contains("pg_createcluster");
        if tests && !has_own && HOSTS.iter().any(|host| block.contains(host)) {
            for index in start..end {
                let lower = document.lower(index);
                let value = HOSTS.iter().find_map(|host| {
                    let at = find_word(lower, host)?;
                    let rest = lower
                        .get(at + host.len()..)?
                        .trim_start_matches(['"', '\'', ' '])
                        .strip_prefix([':', '='])?;
                    Some((at, rest.trim().trim_matches(['"', '\'']).to_owned()))
                });
                if let Some((at, _)) = value
                    .filter(|(_, value)| value.starts_with("localhost") || value.starts_with("127.0.0.1"))
                {
                    let base = document.lines.get(index).map_or(0, |line| line.span.start);
                    Draft::new(FindingCode::LintTestOnLiveServer, text, base + at..base + lower.trim_end().len(), "restore test")
                        .says("this restore test uses the server on localhost, and nothing says that it is not the live one")
                        .because("a test database beside the live ones shares its disk, its memory, its roles and its superuser; a dump may hold statements for the whole cluster")
                        .mend("give the test a server of its own (a service container, initdb); seaworthy drill starts one without a network route and proves it")
                        .report(out);
                    break;
                }
            }
        }
        start = end.max(start + 1);
    }
}

fn cipher(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    let is_signed = document.says(&["-hmac", "hmac ", "-sign "]);
    for (_, script, index, call) in all(document) {
        let is_encrypting = call.is(&["openssl"])
            && call.words.first().is_some_and(|word| word.text == "enc" || word.text.starts_with("aes-"))
            && !call.has(&["-d"]);
        if !is_encrypting || is_signed {
            continue;
        }
        let is_cipher = call.words.iter().find(|word| {
            let lower = word.text.trim_start_matches('-').to_ascii_lowercase();
            lower.starts_with("aes")
                || lower.starts_with("des")
                || lower.starts_with("camellia")
                || lower.starts_with("bf-")
        });
        let of_copies = super::is_about_copies(call)
            || stands_among_copies(document, script)
            // 10: the pipe that it stands in.
            || script.calls.iter().skip(index.saturating_sub(10)).take(20).any(|other| other.pipeline == call.pipeline && super::is_dump(other))
            || call.texts().any(|word| word.contains(".sql") || word.contains(".tar"));
        if let Some(word) = is_cipher.filter(|_| of_copies) {
            Draft::new(FindingCode::LintUnauthenticated, text, call.program_span.start..word.span.end, "openssl enc")
                .says(format!("`openssl enc {}` does not notice a change of what it encrypted", word.text))
                .because("seen with OpenSSL 3.0: of a file with one byte changed, the decryption ends with 0 and gives other bytes; `openssl enc` has no authenticated cipher (\"AEAD ciphers not supported\")")
                .mend("age --recipient KEY -o FILE.age FILE, or gpg --encrypt; seaworthy authenticates every byte that it stores")
                .report(out);
            return;
        }
    }
    let (mut cbc, mut gcm): (Option<Range<usize>>, Option<Range<usize>>) = (None, None);
    for index in document.prose_lines() {
        let lower = document.lower(index);
        if lower.contains("tls_")
            || lower.contains("ssl_cipher")
            || is_refusal(lower)
            || lower.contains("hmac")
            || lower.contains("encrypt-then-mac")
        {
            continue;
        }
        let start = document.lines.get(index).map_or(0, |line| line.span.start);
        for (name, slot) in [("aes-256-cbc", &mut cbc), ("aes-256-gcm", &mut gcm)] {
            if let Some(at) = lower.find(name).filter(|_| slot.is_none()) {
                *slot = Some(start + at..start + at + name.len());
            }
        }
    }
    if let Some(cbc) = cbc {
        let draft = Draft::new(FindingCode::LintUnauthenticated, text, cbc, "AES-256-CBC")
            .because("CBC encrypts and does not authenticate: a changed or exchanged copy decrypts without an error (seen with OpenSSL 3.0)")
            .mend("age, gpg, or a repository that authenticates: restic's, which seaworthy writes");
        match gcm {
            Some(gcm) => draft
                .says("the copies are said to be encrypted with AES-256-CBC here and with AES-256-GCM there")
                .with(text, gcm, "AES-256-GCM is claimed here"),
            None => draft.says("AES-256-CBC does not notice when a copy was changed"),
        }
        .report(out);
    }
}

fn one_key_for_many(text: usize, document: &Document<'_>, out: &mut Out<'_>) {
    for script in &document.scripts {
        // A sentence with a command in it is one line, which may be long and hold many.
        if script.origin == Origin::Inline {
            continue;
        }
        let Some(call) =
            script.calls.iter().find(|call| call.is(&["cast", "forge"]) && call.has(&["--private-key"]))
        else {
            continue;
        };
        // What the script says in its comments, and the ten lines before it.
        let first = document.line_of(script.span.start).saturating_sub(10);
        let last = document.line_of(script.span.end);
        for index in first..=last {
            let lower = document.lower(index);
            let demands = [
                "multi-sig",
                "multisig",
                "multi sig",
                "signers",
                "approval",
                "approvers",
                "admin keys",
                "key holders",
            ]
            .iter()
            .any(|word| lower.contains(word));
            let Some((at, length)) = several_of(lower).filter(|_| demands) else { continue };
            let start = document.lines.get(index).map_or(0, |line| line.span.start) + at;
            Draft::new(FindingCode::LintOneKeyForMany, text, start..start + length, "approvals")
                .says(format!(
                    "{} approvals are demanded, and the command below needs one key",
                    quoted(document.text.get(start..start + length).unwrap_or_default())
                ))
                .because("what nobody enforces is a wish: whoever holds that key can do it alone")
                .mend("make the multi-signature contract the owner, and propose the transaction to it")
                .with(text, call.span(), "one key signs here")
                .report(out);
            break;
        }
    }
}

/// `3/5`, `3 of 5`, `3-of-5`, more than one being demanded: where it stands and how long it is.
fn several_of(lower: &str) -> Option<(usize, usize)> {
    for separator in ["/", " of ", "-of-"] {
        for (at, _) in lower.match_indices(separator) {
            let before = lower.get(..at)?.chars().next_back().filter(char::is_ascii_digit);
            let after = lower.get(at + separator.len()..)?.chars().next().filter(char::is_ascii_digit);
            if let (Some(before), Some(after)) = (before, after)
                && before > '1'
                && after >= before
            {
                return Some((at - 1, separator.len() + 2));
            }
        }
    }
    None
}
