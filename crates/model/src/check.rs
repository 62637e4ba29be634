//! Checks that a user declares beside those derived from the witness.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::id::CheckName;

/// One question of the user's to a restored source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserCheck {
    /// Its name; part of the receipt.
    pub name: CheckName,
    /// What is asked.
    pub question: Question,
    /// How long it may take before it is inconclusive.
    pub timeout: SignedDuration,
}

impl UserCheck {
    /// The table that the question names, as the user wrote it.
    #[must_use]
    pub fn table(&self) -> Option<&str> {
        match &self.question {
            Question::MinimumRows { table, .. } | Question::Freshness { table, .. } => Some(table),
            Question::Sql { .. }
            | Question::Migration { .. }
            | Question::Command { .. }
            | Question::Http { .. } => None,
        }
    }

    /// Whether the question names this table. `parts` takes a name apart, as the engine does: `table`, or `schema.table`.
    #[must_use]
    pub fn is_about(&self, schema: &str, table: &str, parts: impl Fn(&str) -> Option<Vec<String>>) -> bool {
        let asked = self.table().and_then(parts).unwrap_or_default();
        match asked.as_slice() {
            [asked] => asked == table,
            [asked_schema, asked] => asked_schema == schema && asked == table,
            _ => false,
        }
    }
}

/// What a user may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Question {
    /// A query that returns one row with one column, which must be true (or equal `expect` as text).
    Sql {
        /// Database it runs in; the source's own where omitted.
        database: Option<String>,
        /// The query, run read-only.
        query: String,
        /// The expected text; `true` where omitted.
        expect: Option<String>,
    },
    /// A table with at least this many rows.
    MinimumRows {
        /// `schema.table`, or `table`.
        table: String,
        /// Fewest rows that are plausible.
        rows: u64,
    },
    /// The newest value of a time column, not older than this before the recovery point.
    Freshness {
        /// `schema.table`, or `table`.
        table: String,
        /// A column of a date or time type.
        column: String,
        /// Largest distance between the newest value and the recovery point.
        within: SignedDuration,
    },
    /// The revision that a schema migration tool has recorded.
    Migration {
        /// `alembic`, `sqlx`, `flyway`, `diesel`, `django`, `rails`.
        tool: String,
        /// The revision that must be the newest one.
        revision: String,
    },
    /// A program run inside the sandbox, without a shell; exit status 0 passes.
    Command {
        /// Program and arguments.
        argv: Vec<String>,
    },
    /// A request to a service started inside the sandbox.
    Http {
        /// Address on the sandbox's own loopback.
        url: String,
        /// Expected status.
        status: u16,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(table: &str, schema: &str, name: &str) -> bool {
        let check = UserCheck {
            name: CheckName::new("rows").unwrap(),
            question: Question::MinimumRows { table: table.to_owned(), rows: 1 },
            timeout: SignedDuration::from_secs(1),
        };
        assert_eq!(check.table(), Some(table));
        check.is_about(schema, name, |text| Some(text.split('.').map(str::to_owned).collect()))
    }

    #[test]
    fn a_question_is_about_the_table_that_it_names_in_whatever_schema_it_names() {
        assert!(about("orders", "public", "orders") && about("orders", "other", "orders"));
        assert!(!about("orders", "public", "order"));
        assert!(about("public.orders", "public", "orders"));
        assert!(!about("public.orders", "other", "orders"));
        assert!(!about("public.orders", "public", "items"));
        assert!(!about("a.b.c", "a", "b") && !about("", "public", "orders"));
        let command = UserCheck {
            name: CheckName::new("command").unwrap(),
            question: Question::Command { argv: vec!["true".to_owned()] },
            timeout: SignedDuration::from_secs(1),
        };
        assert_eq!(command.table(), None);
    }
}
