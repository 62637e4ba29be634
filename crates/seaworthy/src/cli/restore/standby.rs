//! What `--standby` asks for, and where the standby gets what its primary writes.

use seaworthy_interface::{Following, Opening};
use seaworthy_model::service::{Service, ServiceSource};
use seaworthy_model::source::SourceSpec;

use crate::cli::args::Restore;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::state::absolute;

/// What a server does that is started on what was restored.
pub(super) fn opening(service: &Service, source: &ServiceSource, arguments: &Restore) -> Outcome<Opening> {
    if !arguments.standby {
        return Ok(Opening::Alone);
    }
    if !matches!(source.spec, SourceSpec::Postgres(_)) {
        return Err(Failure::new(
            Exit::Usage,
            format!("source `{}` is not a PostgreSQL cluster; nothing else has standbys", source.name),
        ));
    }
    if arguments.primary.is_none() && arguments.socket.is_none() {
        return Err(Failure::new(Exit::Usage, "where the standby gets what its primary writes was not said").hint(
            "--primary 'host=… user=…' follows the primary, --socket PATH asks `seaworthy wal serve`; both are best",
        ));
    }
    for (option, value) in [("--primary", &arguments.primary), ("--slot", &arguments.slot)] {
        if value.as_ref().is_some_and(|value| value.chars().any(char::is_control)) {
            return Err(Failure::new(
                Exit::Usage,
                format!("{option} holds a character that no file of settings may hold"),
            ));
        }
    }
    if let Some(primary) = &arguments.primary {
        without_password(primary)?;
    }
    let fetch = match &arguments.socket {
        None => None,
        Some(socket) => {
            let program = std::env::current_exe()
                .map_err(|error| Failure::because(Exit::Unknown, "find this program", &error))?;
            let words = [program, absolute(socket)?].map(|path| path.into_os_string().into_string());
            let [Ok(program), Ok(socket)] = words else {
                return Err(Failure::new(
                    Exit::Usage,
                    "the paths of this program and of the socket must be UTF-8",
                ));
            };
            let (program, socket) = (word(&program)?, word(&socket)?);
            Some(format!(
                "{program} wal get --socket {socket} {} --source {} %f \"%p\"",
                service.name, source.name
            ))
        }
    };
    Ok(Opening::Standby(Following {
        primary: arguments.primary.clone(),
        slot: arguments.slot.clone(),
        fetch,
    }))
}

/// A word of a shell command in which the server replaces what follows a `%`.
fn word(text: &str) -> Outcome<String> {
    if text.chars().any(char::is_control) {
        return Err(Failure::new(
            Exit::Usage,
            format!("`{}` holds a character that no file of settings may hold", printable(text)),
        ));
    }
    Ok(format!("'{}'", text.replace('\'', "'\\''").replace('%', "%%")))
}

/// Refuses a connection string with a password: it would stand in lists of processes, in the shell's history and in the server's settings.
fn without_password(primary: &str) -> Outcome<()> {
    let plain = primary.to_ascii_lowercase();
    // As an option, quoted or not, or in an address.
    let is_option = plain.split("password").skip(1).any(|rest| rest.trim_start().starts_with('='));
    let is_address = plain.split_once("://").is_some_and(|(_, rest)| {
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
    });
    if is_option || is_address {
        return Err(Failure::new(Exit::Usage, "--primary holds a password")
            .hint("leave it out: the standby's user has it in a file, ~/.pgpass or passfile=PATH"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_found_however_it_is_written() {
        for told in [
            "host=a password=b",
            "PASSWORD = 'b' host=a",
            "postgres://me:b@host/db",
            "postgresql://host/?password=b",
            "sslpassword=b",
        ] {
            assert!(without_password(told).is_err(), "{told}");
        }
        for told in
            ["host=a passfile=/x/.pgpass", "postgres://me@host:5432/db", "host=/run user=password_keeper", ""]
        {
            assert!(without_password(told).is_ok(), "{told}");
        }
    }

    #[test]
    fn a_word_is_what_the_server_s_shell_reads() {
        assert_eq!(word("/a b/it's%p").unwrap(), "'/a b/it'\\''s%%p'");
        assert!(word("a\nb").is_err());
    }
}
