//! What an engine or a restoring program says goes wrong, and what that says of the copy.
//!
//! The default is that the copy is at fault. An exception is made for what a sound dump of a sound database is known to say
//! in an empty engine, for what its host lacks, and for roles, which a dump of one database names and never holds.

use crate::finding::FindingCode;

/// What a message of an error amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A sound dump says it, too; why.
    Harmless(&'static str),
    /// A role that must be made first.
    Role(String),
    /// The machine lacks something: the code, and what to do.
    Environment(FindingCode, &'static str),
    /// The copy ends too early or is damaged.
    Damaged(FindingCode),
    /// The copy cannot be restored as it is.
    Wrong,
}

/// Judges a message: of the server's (with its SQLSTATE where the protocol carried it) or of `pg_restore`'s, and the
/// statement that it is about.
#[must_use]
pub fn judge(state: Option<&str>, message: &str, statement: &str) -> Said {
    let is = |wanted: &str| state.is_none_or(|state| state == wanted);
    let statement = statement.trim_start();
    let begins =
        |words: &str| statement.get(..words.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(words));
    let (holds, ends) =
        (|words: &str| message.contains(words), |words: &str| message.trim_end().ends_with(words));

    if is("42704")
        && ends("does not exist")
        && let Some(role) = quoted(message, "role \"")
    {
        return Said::Role(role);
    }
    if begins("SET ") && holds("unrecognized configuration parameter") {
        return Said::Harmless("a setting of a newer program that this server does not know");
    }
    if begins("SET default_tablespace") || begins("SET default_table_access_method") {
        return Said::Harmless("a tablespace that this server does not have");
    }
    if begins("CREATE SCHEMA public") && holds("schema \"public\" already exists") {
        return Said::Harmless("every new database has it");
    }
    if begins("CREATE ROLE") && holds("already exists") {
        return Said::Harmless("a role that the scratch engine has already");
    }
    if begins("DROP ROLE") && (holds("current user cannot be dropped") || holds("does not exist")) {
        return Said::Harmless("a dump that cleans up first, in an empty engine");
    }
    let is_missing = ["42P01", "42704", "42883", "3F000", "42703", "3D000"].into_iter().any(is);
    let drops = begins("DROP ")
        || begins("SELECT pg_catalog.lo_unlink(")
        || (begins("ALTER TABLE ")
            && [" DROP CONSTRAINT ", " DROP DEFAULT"].iter().any(|words| statement.contains(words)));
    if drops && is_missing && ends("does not exist") {
        return Said::Harmless("a dump that cleans up first, in an empty database");
    }

    if holds("No space left on device") || holds("could not extend file") || state == Some("53100") {
        return Said::Environment(FindingCode::EnvDisk, "free space, or give the sandbox another directory");
    }
    if holds("could not open extension control file")
        || (holds("extension \"") && holds("is not available"))
        || holds("could not access file \"$libdir")
        || holds("could not load library")
        || (holds("must be loaded via \"shared_preload_libraries\"")
            || holds("must be loaded via shared_preload_libraries"))
    {
        return Said::Environment(
            FindingCode::EnvExtension,
            "install the package of the extension that is named",
        );
    }
    if holds("invalid locale name")
        || holds("could not find locale")
        || (holds("collation \"") && ends("does not exist"))
        || holds("could not create locale")
    {
        return Said::Environment(FindingCode::EnvLocale, "install the locale that is named");
    }
    if holds("out of memory") || holds("Cannot allocate memory") || state == Some("53200") {
        return Said::Environment(FindingCode::EnvOther, "give the sandbox more memory");
    }
    if holds("deadlock detected") || holds("server closed the connection") || holds("Connection refused") {
        return Said::Environment(FindingCode::EnvOther, "run the drill again");
    }
    if holds("unsupported version (") {
        return Said::Environment(FindingCode::EnvBinary, "install a newer pg_restore");
    }
    if holds("permission denied to change owner of event trigger")
        || holds("must be superuser to")
        || holds("Must be superuser to")
    {
        return Said::Environment(
            FindingCode::EnvPermission,
            "its owner must be a superuser; restore the roles first",
        );
    }

    let reads =
        ["could not read from input file", "unexpected end of file", "could not read", "corrupt tar header"];
    if reads.into_iter().any(holds) || holds("does not appear to be a valid") || holds("too short") {
        return Said::Damaged(FindingCode::ArchiveTruncated);
    }
    if holds("could not open input file")
        || holds("could not open file \"")
        || holds("could not find header for file")
    {
        return Said::Damaged(FindingCode::ObjectMissing);
    }
    if holds("could not uncompress data")
        || holds("unrecognized data block type")
        || holds("did not find magic")
    {
        return Said::Damaged(FindingCode::ObjectDamaged);
    }
    Said::Wrong
}

/// The text between `before` and the last `"` of its line.
fn quoted(message: &str, before: &str) -> Option<String> {
    let (_, rest) = message.split_once(before)?;
    let line = rest.lines().next()?;
    let (name, _) = line.rsplit_once('"')?;
    (!name.is_empty() && name.len() <= 63).then(|| name.to_owned())
}

/// One error of `pg_restore`'s: its message, and the statement that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// The first line.
    pub message: String,
    /// The statement; empty where there is none.
    pub statement: String,
}

/// The errors in what `pg_restore` said.
#[must_use]
pub fn complaints(stderr: &str) -> Vec<Complaint> {
    let mut parts = stderr.split("pg_restore: error: ");
    // What stands before the first is no error.
    parts.next();
    parts
        .map(|part| {
            let message = part.lines().next().unwrap_or_default().trim().to_owned();
            let statement = part.split_once("Command was: ").map_or("", |(_, rest)| rest);
            Complaint { message, statement: statement.to_owned() }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sound_dump_says_too_is_no_error() {
        for (state, message, statement) in [
            (
                Some("42704"),
                "unrecognized configuration parameter \"transaction_timeout\"",
                "SET transaction_timeout = 0",
            ),
            (Some("42P06"), "schema \"public\" already exists", "CREATE SCHEMA public"),
            (Some("42710"), "role \"postgres\" already exists", "CREATE ROLE postgres"),
            (Some("42P01"), "table \"orders\" does not exist", "DROP TABLE public.orders"),
            (Some("42704"), "large object 16532 does not exist", "SELECT pg_catalog.lo_unlink('16532')"),
            (
                Some("42P01"),
                "relation \"public.orders\" does not exist",
                "ALTER TABLE public.orders ALTER COLUMN id DROP DEFAULT",
            ),
            (
                Some("42P01"),
                "relation \"public.orders\" does not exist",
                "ALTER TABLE ONLY public.orders DROP CONSTRAINT orders_pkey",
            ),
            (
                Some("22023"),
                "invalid value for parameter \"default_tablespace\": \"fast\"",
                "SET default_tablespace = fast",
            ),
        ] {
            assert!(matches!(judge(state, message, statement), Said::Harmless(_)), "{statement}");
        }
    }

    #[test]
    fn what_only_a_bad_copy_says_is_an_error() {
        for (state, message, statement) in [
            (
                Some("42P01"),
                "relation \"public.orders\" does not exist",
                "COPY public.orders (id) FROM stdin",
            ),
            (
                Some("42P01"),
                "relation \"public.orders\" does not exist",
                "ALTER TABLE ONLY public.orders ADD CONSTRAINT x",
            ),
            (Some("42601"), "syntax error at or near \"x\"", "DROP TABLE x y"),
            (
                Some("23505"),
                "could not create unique index \"orders_pkey\"",
                "ALTER TABLE ONLY public.orders ADD",
            ),
            (Some("42704"), "type \"public.mood\" does not exist", "CREATE TABLE x (m public.mood)"),
            (None, "could not execute query: ERROR:  relation \"x\" does not exist", "CREATE INDEX i ON x"),
            (Some("42710"), "role \"x\" already exists", "CREATE TABLE x"),
            (Some("22023"), "role \"x\" is odd", "SELECT 1"),
        ] {
            assert_eq!(judge(state, message, statement), Said::Wrong, "{statement}");
        }
    }

    #[test]
    fn a_missing_role_is_named_whole() {
        assert_eq!(
            judge(
                Some("42704"),
                "role \"shop owner\" does not exist",
                "ALTER TABLE t OWNER TO \"shop owner\""
            ),
            Said::Role("shop owner".to_owned())
        );
        assert_eq!(
            judge(None, "could not execute query: ERROR:  role \"a\"b\" does not exist", "GRANT"),
            Said::Role("a\"b".to_owned())
        );
    }

    #[test]
    fn the_machine_and_the_copy_are_told_apart() {
        let code = |message: &str| match judge(None, message, "CREATE EXTENSION x") {
            Said::Environment(code, _) | Said::Damaged(code) => code.as_str(),
            other => panic!("{message}: {other:?}"),
        };
        for (message, wanted) in [
            ("ERROR:  extension \"postgis\" is not available", "ENV-EXTENSION"),
            ("could not open extension control file \"/usr/x.control\": No such file", "ENV-EXTENSION"),
            ("ERROR:  collation \"pg_catalog.de_DE\" for encoding \"UTF8\" does not exist", "ENV-LOCALE"),
            ("could not extend file \"base/1\": No space left on device", "ENV-DISK"),
            ("could not read from input file: end of file", "RP-04"),
            ("could not uncompress data: incorrect data check", "RP-01"),
            ("unsupported version (1.16) in file header", "ENV-BINARY"),
        ] {
            assert_eq!(code(message), wanted, "{message}");
        }
    }

    #[test]
    fn complaints_carry_their_statement() {
        let said = "pg_restore: while PROCESSING TOC:\npg_restore: from TOC entry 3; 0 0 X\n\
                    pg_restore: error: could not execute query: ERROR:  role \"x\" does not exist\n\
                    Command was: ALTER TABLE public.t OWNER TO x;\n\n\n\
                    pg_restore: error: could not read from input file: end of file\n\
                    pg_restore: warning: errors ignored on restore: 1\n";
        let found = complaints(said);
        assert_eq!(found.len(), 2);
        assert!(
            found[0].message.ends_with("does not exist") && found[0].statement.starts_with("ALTER TABLE")
        );
        assert_eq!(found[1].statement, "");
        assert!(complaints("pg_restore: warning: x\n").is_empty());
    }
}
