//! What happened to the source between the snapshot and the end of the dump, where `pg_dump` would not say so.
//!
//! A dump is not all of one instant: rows and the list of objects come from its snapshot, but a table that was rewritten
//! since then looks empty to it, and how an object is made is asked of the server as it is by then. Both end well and
//! leave a copy that lacks something. Nothing here tolerates: what is found ends the backup or makes it incomplete.

use std::collections::BTreeMap;

use seaworthy_interface::{Cx, DriverError};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::witness::postgres::{Definition, ObjectClass, printable};

use super::catalog::View;
use super::session::{Session, parsed, text};

/// Oids in one statement: a megabyte of text is more than enough for a parser.
const OIDS_AT_ONCE: usize = 10_000;

/// What stands for the definition of an object that the snapshot shows and the server does not have any more.
pub(super) const GONE: &str = "gone";

/// Whether the server could not say an object's definition, because it was dropped after the snapshot was taken.
pub(super) fn is_gone(class: ObjectClass, identity: &str, definition: &str) -> bool {
    match class {
        ObjectClass::Triggers | ObjectClass::Rules | ObjectClass::Indexes | ObjectClass::Statistics => {
            definition.starts_with("\u{1a}\u{1f}")
        }
        ObjectClass::Constraints => {
            definition.get(1..).is_some_and(|rest| rest.starts_with("\u{1f}\u{1a}\u{1f}"))
        }
        // A routine without a name is written as its oid.
        ObjectClass::Routines => identity.bytes().all(|byte| byte.is_ascii_digit()),
        _ => false,
    }
}

/// What was dropped, replaced or renamed after the snapshot was taken, so that the dump may lack it or hold it broken.
///
/// `pg_dump` reads which objects there are in the snapshot, and asks the server as it is now how they are made: of one
/// that is gone it writes nothing, or a statement without a body, and ends well. Objects in `after` were read like that
/// too, in the same snapshot and after the dump, so what it met is missing here.
pub(super) async fn gone(
    cx: &Cx,
    session: &Session,
    view: &View,
    after: &BTreeMap<ObjectClass, BTreeMap<String, Definition>>,
) -> Result<Vec<Finding>, DriverError> {
    let mut gone: Vec<String> = Vec::new();
    for (class, objects) in after {
        let of_class = objects.iter().filter(|(_, definition)| definition.digest == GONE);
        gone.extend(of_class.map(|(identity, _)| format!("{}: {identity}", class.word())));
    }
    // The columns are read in the snapshot, the cast is not.
    let sql = format!(
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'i', 'I') AND c.relpersistence <> 't' AND {} AND {} \
         AND c.oid::regclass::text <> format('%I.%I', n.nspname, c.relname) ORDER BY 1",
        view.schema(),
        view.relation("c.oid")
    );
    for row in session.query(cx, "look for relations that were renamed", &sql).await? {
        gone.push(text(&row, 0)?);
    }
    let told = gone.into_iter().map(|name| {
        Finding::new(
            FindingCode::ScopeNarrow,
            printable(&name),
            "was dropped, replaced or renamed while the dump ran, which may lack it; run the backup again",
        )
    });
    Ok(told.collect())
}

/// Tables among these oids whose file is another one than the session's snapshot shows.
///
/// A table that is emptied or rewritten (`TRUNCATE`, most forms of `ALTER TABLE ... TYPE`) after a snapshot looks empty to
/// it: not an error, no rows. The dump and the measurement would agree on nothing. Asked by a session that has read the
/// tables in the same transaction, and so holds them, this says whether it happened before that.
pub(super) async fn rewritten(cx: &Cx, session: &Session, oids: &[u32]) -> Result<Vec<u32>, DriverError> {
    let mut found = Vec::new();
    for part in oids.chunks(OIDS_AT_ONCE) {
        let listed = part.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        // The column is read in the snapshot, the function is not.
        let sql = format!(
            "SELECT c.oid::text FROM pg_class c WHERE c.oid IN ({listed}) \
             AND pg_relation_filenode(c.oid) IS DISTINCT FROM c.relfilenode"
        );
        for row in session.query(cx, "look for tables that were rewritten", &sql).await? {
            found.push(parsed(&row, 0)?);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_could_not_say_is_gone_and_nothing_else_is() {
        let is_gone = |class, definition: &str| is_gone(class, "public.t: x", definition);
        assert!(is_gone(ObjectClass::Triggers, "\u{1a}\u{1f}O"));
        assert!(!is_gone(ObjectClass::Triggers, "CREATE TRIGGER x\u{1f}O"));
        assert!(is_gone(ObjectClass::Constraints, "c\u{1f}\u{1a}\u{1f}true\u{1f}false"));
        assert!(!is_gone(ObjectClass::Constraints, "f\u{1f}FOREIGN KEY\u{1f}true\u{1f}\u{1a}"));
        assert!(!is_gone(ObjectClass::Tables, "\u{1a}\u{1f}"), "elsewhere a null is a value");
        assert!(super::is_gone(ObjectClass::Routines, "17999", "f"));
        assert!(!super::is_gone(ObjectClass::Routines, "public.\"17\"(integer)", "f"));
    }
}
