//! A connection whose every setting that changes a value's text is pinned, and whose every wait can be cancelled.
//!
//! Row security is off: a role that would see fewer rows gets an error, never fewer rows.

use std::fmt;
use std::io::Cursor;
use std::time::Duration;

use futures::SinkExt as _;
use seaworthy_interface::{Cx, DriverError, ErrorKind};
use seaworthy_model::finding::FindingCode;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::mpsc;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{CancelToken, Client, Config, NoTls, Row};

use super::names::{bytes_of, has_bytes, is_local, literal, text_of};

/// How long a cancelled query is given to end on the server before the connection is dropped.
const CANCEL_GRACE: Duration = Duration::from_secs(2);
/// How long a connection may take to be made: longer than a busy server needs, shorter than a probe may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);

/// Where a server is, and as whom it is asked.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) database: String,
    pub(super) password: Option<SecretString>,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{} as {}", self.host, self.port, self.database, self.user)
    }
}

/// What a session is for, which decides how far its server is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Reads a live source: no parallel workers, gives up when the client is gone.
    Source,
    /// Works in a scratch engine of our own, as its superuser.
    Scratch,
    /// Works in a new database for people, with whatever rights its role has.
    Target,
}

/// What a server said, without the detail line, which may repeat a row.
#[derive(Debug, thiserror::Error)]
#[error("{severity}: {message} (SQLSTATE {state})")]
pub(super) struct ServerSaid {
    severity: String,
    message: String,
    state: String,
}

/// The SQLSTATE of an error of the server.
pub(super) fn state_of(error: &DriverError) -> Option<&str> {
    let said = std::error::Error::source(error)?.downcast_ref::<ServerSaid>()?;
    Some(&said.state)
}

/// A text from the server; a byte that is not UTF-8 (in a SQL_ASCII database) is a character of its own, never lost.
pub(super) struct Text(pub(super) String);

impl<'a> FromSql<'a> for Text {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(text_of(raw)))
    }

    fn accepts(ty: &Type) -> bool {
        matches!(*ty, Type::TEXT | Type::NAME | Type::VARCHAR | Type::BPCHAR | Type::UNKNOWN)
    }
}

/// A column that must be a text.
pub(super) fn text(row: &Row, column: usize) -> Result<String, DriverError> {
    optional(row, column)?.ok_or_else(|| {
        DriverError::new(ErrorKind::Corrupt, format!("read column {column} of a catalogue: null"))
    })
}

/// A column that may be null.
pub(super) fn optional(row: &Row, column: usize) -> Result<Option<String>, DriverError> {
    let value: Option<Text> = row.try_get(column).map_err(|error| {
        DriverError::new(ErrorKind::Other, format!("read column {column} of a catalogue")).because(error)
    })?;
    Ok(value.map(|Text(text)| text))
}

/// A column that holds hexadecimal digits of a text's bytes, as `names::hexadecimal` asks for, and may be null.
pub(super) fn optional_bytes(row: &Row, column: usize) -> Result<Option<String>, DriverError> {
    let Some(digits) = optional(row, column)? else { return Ok(None) };
    let wrong = || {
        DriverError::new(
            ErrorKind::Corrupt,
            format!("read column {column} of a catalogue as hexadecimal digits"),
        )
    };
    let bytes = digits.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2);
        pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(wrong)
    });
    Ok(Some(text_of(&bytes.collect::<Result<Vec<u8>, _>>()?)))
}

/// A column that holds hexadecimal digits of a text's bytes.
pub(super) fn text_bytes(row: &Row, column: usize) -> Result<String, DriverError> {
    optional_bytes(row, column)?.ok_or_else(|| {
        DriverError::new(ErrorKind::Corrupt, format!("read column {column} of a catalogue: null"))
    })
}

/// A column whose text must be a number or a boolean.
pub(super) fn parsed<T: std::str::FromStr>(row: &Row, column: usize) -> Result<T, DriverError> {
    let value = text(row, column)?;
    value.parse().map_err(|_| {
        DriverError::new(ErrorKind::Corrupt, format!("read column {column} of a catalogue as a number"))
    })
}

/// A column whose text is `t`, `true`, `f` or `false`.
pub(super) fn flag(row: &Row, column: usize) -> Result<bool, DriverError> {
    Ok(matches!(text(row, column)?.as_str(), "t" | "true"))
}

/// An error of the server or of the connection while attempting `context`.
pub(super) fn failed(context: impl Into<String>, error: tokio_postgres::Error) -> DriverError {
    let context = context.into();
    let Some(said) = error.as_db_error() else {
        let mut causes = Vec::new();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            causes.push(inner);
            cause = inner.source();
        }
        let refused = causes
            .iter()
            .filter_map(|inner| inner.downcast_ref::<std::io::Error>())
            .any(|io| io.kind() == std::io::ErrorKind::PermissionDenied);
        let kind = if refused { ErrorKind::PermissionDenied } else { ErrorKind::Unreachable };
        let is_auth = error.to_string().contains("authentication") || error.to_string().contains("password");
        let kind = if is_auth { ErrorKind::Unauthenticated } else { kind };
        return DriverError::new(kind, context).because(error);
    };
    let (kind, code, hint) = match said.code() {
        &SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION => (
            ErrorKind::Unauthenticated,
            Some(FindingCode::AuthDenied),
            Some("do the user, the password's reference and pg_hba.conf agree?"),
        ),
        &SqlState::INSUFFICIENT_PRIVILEGE if said.message().contains("row-level security") => (
            ErrorKind::PermissionDenied,
            Some(FindingCode::RowsFiltered),
            Some("run `ALTER ROLE <backup role> BYPASSRLS`: row security would hide rows from the backup"),
        ),
        &SqlState::INSUFFICIENT_PRIVILEGE => (
            ErrorKind::PermissionDenied,
            Some(FindingCode::ScopeNarrow),
            Some(
                "run `GRANT pg_read_all_data TO <backup role>` (PostgreSQL 14 and newer), or declare an exclusion",
            ),
        ),
        &SqlState::UNDEFINED_DATABASE => (ErrorKind::NotFound, None, Some("is the database's name right?")),
        &SqlState::CANNOT_CONNECT_NOW | &SqlState::ADMIN_SHUTDOWN | &SqlState::CRASH_SHUTDOWN => {
            (ErrorKind::Unreachable, None, None)
        }
        &SqlState::TOO_MANY_CONNECTIONS => {
            (ErrorKind::Unreachable, None, Some("raise max_connections or the role's connection limit"))
        }
        &SqlState::LOCK_NOT_AVAILABLE => (
            ErrorKind::Conflict,
            None,
            Some("a lock was held for longer than `lock_timeout`; which session holds it?"),
        ),
        &SqlState::T_R_DEADLOCK_DETECTED => (
            ErrorKind::Conflict,
            Some(FindingCode::EnvOther),
            Some("two statements waited for each other; run it again"),
        ),
        &SqlState::UNDEFINED_TABLE | &SqlState::UNDEFINED_COLUMN | &SqlState::UNDEFINED_FUNCTION => {
            (ErrorKind::Other, None, Some("does it exist, or was it changed meanwhile? then run it again"))
        }
        &SqlState::OUT_OF_MEMORY if said.message().contains("shared memory") => (
            ErrorKind::Exhausted,
            None,
            Some(
                "raise max_locks_per_transaction: reading locks each table and its indexes until the snapshot ends",
            ),
        ),
        &SqlState::DISK_FULL => (ErrorKind::Exhausted, None, Some("free space on the server")),
        _ => (ErrorKind::Other, None, None),
    };
    let mut wrapped = DriverError::new(kind, context).because(ServerSaid {
        severity: said.severity().to_owned(),
        message: said.message().to_owned(),
        state: said.code().code().to_owned(),
    });
    if let Some(code) = code {
        wrapped = wrapped.code(code);
    }
    if let Some(hint) = hint {
        wrapped = wrapped.hint(hint);
    }
    wrapped
}

/// Why rows could not be copied in.
#[derive(Debug)]
pub(super) enum CopyError {
    /// There were no more of them, or the run was stopped.
    Data(DriverError),
    /// The server did not take them.
    Server(DriverError),
}

/// Classes of errors whose words are about connections, transactions, rights, syntax and resources. What is said in any
/// other (a value, a constraint, whatever a function raises) may repeat a value of the data.
const WORDS_WITHOUT_VALUES: [&str; 8] = ["08", "25", "40", "42", "53", "55", "57", "58"];

/// An error of a COPY; where its words may hold a value, only its SQLSTATE is told.
fn refused(what: &str, error: tokio_postgres::Error) -> CopyError {
    let state = error.as_db_error().map(|said| said.code().code().to_owned());
    CopyError::Server(match state {
        Some(state) if !WORDS_WITHOUT_VALUES.iter().any(|class| state.starts_with(class)) => {
            let context = format!("{what}: the server refused them (SQLSTATE {state})");
            DriverError::new(ErrorKind::Corrupt, context)
        }
        Some(_) | None => failed(what, error),
    })
}

/// One connection. Dropping it closes it; a query that is being waited for is cancelled on the server first.
pub(super) struct Session {
    client: Client,
    cancel: CancelToken,
    driven: tokio::task::JoinHandle<()>,
    /// `server_version_num`.
    pub(super) version: u32,
    /// Whether the database has no encoding (SQL_ASCII), so that texts go both ways as bytes.
    has_bytes: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("version", &self.version).finish_non_exhaustive()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driven.abort();
    }
}

impl Session {
    /// Connects and pins the session.
    pub(super) async fn open(cx: &Cx, to: &Address, purpose: Purpose) -> Result<Self, DriverError> {
        let mut config = Config::new();
        if to.host.starts_with('/') {
            config.host_path(&to.host);
        } else if is_local(&to.host) {
            config.host(&to.host);
        } else {
            return Err(DriverError::new(ErrorKind::Unsupported, format!("connect to {}", to.host)).hint(
                "TLS is not built in yet: use a Unix socket, or a loopback address (for example an SSH tunnel)",
            ));
        }
        config
            .port(to.port)
            .user(&to.user)
            .dbname(&to.database)
            .application_name("seaworthy")
            .connect_timeout(CONNECT_TIMEOUT)
            .ssl_mode(tokio_postgres::config::SslMode::Disable);
        if let Some(password) = &to.password {
            config.password(password.expose_secret());
        }
        if purpose == Purpose::Scratch {
            // Settings that were restored with a role or a database must not load a library into our own session, nor end it
            // before it has set its own.
            config.options(
                "-c session_preload_libraries= -c local_preload_libraries= -c statement_timeout=0 -c lock_timeout=0",
            );
        }
        let context = format!("connect to {to:?}");
        let (client, connection) =
            cx.run(config.connect(NoTls)).await?.map_err(|error| failed(context.clone(), error))?;
        // The connection must be polled for the client to work. The task ends with the session: `Drop` aborts it.
        let driven = tokio::spawn(async move {
            // How it ended is told by the next query, which finds it closed; there is nobody else to tell.
            drop(connection.await);
        });
        let cancel = client.cancel_token();
        let mut session = Self { client, cancel, driven, version: 0, has_bytes: false };
        let rows = session
            .query(
                cx,
                "ask the server's version",
                "SELECT current_setting('server_version_num'), (getdatabaseencoding() = 'SQL_ASCII')::text",
            )
            .await?;
        let row = rows.first().ok_or_else(|| DriverError::new(ErrorKind::Corrupt, context))?;
        session.version = parsed(row, 0)?;
        session.has_bytes = flag(row, 1)?;
        session.pin(cx, purpose).await?;
        Ok(session)
    }

    async fn pin(&self, cx: &Cx, purpose: Purpose) -> Result<(), DriverError> {
        let mut settings = vec![
            ("standard_conforming_strings", "on"),
            ("search_path", ""),
            ("timezone", "UTC"),
            ("datestyle", "ISO, MDY"),
            ("intervalstyle", "postgres"),
            ("extra_float_digits", "1"),
            ("bytea_output", "hex"),
            ("xmlbinary", "base64"),
            // What is copied in may be a fragment, and pg_restore says so as well.
            ("xmloption", "content"),
            ("lc_monetary", "C"),
            ("lc_numeric", "C"),
            ("lc_time", "C"),
            ("quote_all_identifiers", "off"),
            ("row_security", "off"),
            ("jit", "off"),
            ("default_transaction_isolation", "read committed"),
            ("default_transaction_deferrable", "off"),
        ];
        if self.has_bytes {
            // With the client's encoding on UTF8 the server refuses to send what is none; with this it sends what it has.
            settings.push(("client_encoding", "SQL_ASCII"));
        }
        settings.extend(self.limits());
        if self.version >= 140_000 {
            settings.push(("client_connection_check_interval", "2s"));
        }
        match purpose {
            Purpose::Source => {
                settings.push(("default_transaction_read_only", "on"));
                settings.push(("max_parallel_workers_per_gather", "0"));
            }
            Purpose::Scratch => {
                settings.push(("default_transaction_read_only", "off"));
                // What was restored with a role must not make our session another one.
                settings.push(("role", "none"));
                settings.push(("session_replication_role", "origin"));
            }
            Purpose::Target => settings.push(("default_transaction_read_only", "off")),
        }
        self.set(cx, "pin the session", &settings).await
    }

    /// Settings with which a server ends what takes long. What we ask is ended by the run's own deadline.
    fn limits(&self) -> Vec<(&'static str, &'static str)> {
        let mut limits = vec![("statement_timeout", "0"), ("idle_in_transaction_session_timeout", "0")];
        if self.version >= 140_000 {
            limits.push(("idle_session_timeout", "0"));
        }
        if self.version >= 170_000 {
            limits.push(("transaction_timeout", "0"));
        }
        limits
    }

    /// Takes every limit of time off the session that a database or a role may have brought, but not those of [`Cx`].
    pub(super) async fn unbound(&self, cx: &Cx) -> Result<(), DriverError> {
        let mut limits = self.limits();
        limits.push(("lock_timeout", "0"));
        self.set(cx, "take the limits of time off", &limits).await
    }

    async fn set(&self, cx: &Cx, what: &str, settings: &[(&str, &str)]) -> Result<(), DriverError> {
        let calls: Vec<String> = settings
            .iter()
            .map(|(name, value)| {
                format!("pg_catalog.set_config({}, {}, false)", literal(name), literal(value))
            })
            .collect();
        self.execute(cx, what, &format!("SELECT {}", calls.join(", "))).await
    }

    /// Runs one statement and returns its rows.
    pub(super) async fn query(&self, cx: &Cx, what: &str, sql: &str) -> Result<Vec<Row>, DriverError> {
        let prepared = self.prepare_bytes(cx, what, sql).await?;
        match cx.run(self.client.query(prepared.unwrap_or(sql), &[])).await {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => Err(failed(what, error)),
            Err(stop) => Err(self.stopped(stop).await),
        }
    }

    /// Runs one statement that must return exactly one row.
    pub(super) async fn row(&self, cx: &Cx, what: &str, sql: &str) -> Result<Row, DriverError> {
        let mut rows = self.query(cx, what, sql).await?;
        match (rows.pop(), rows.len()) {
            (Some(row), 0) => Ok(row),
            (_, count) => {
                Err(DriverError::new(ErrorKind::Corrupt, format!("{what}: {count} rows instead of one")))
            }
        }
    }

    /// Runs statements whose rows nobody needs.
    pub(super) async fn execute(&self, cx: &Cx, what: &str, sql: &str) -> Result<(), DriverError> {
        let run = self.as_block(what, sql, "")?;
        match cx.run(self.client.batch_execute(run.as_deref().unwrap_or(sql))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failed(what, error)),
            Err(stop) => Err(self.stopped(stop).await),
        }
    }

    /// Runs one statement and returns how many rows it changed.
    pub(super) async fn change(&self, cx: &Cx, what: &str, sql: &str) -> Result<u64, DriverError> {
        let prepared = self.prepare_bytes(cx, what, sql).await?;
        match cx.run(self.client.execute(prepared.unwrap_or(sql), &[])).await {
            Ok(Ok(count)) => Ok(count),
            Ok(Err(error)) => Err(failed(what, error)),
            Err(stop) => Err(self.stopped(stop).await),
        }
    }

    /// A statement with a name that is no UTF-8, as a block that says it in ASCII; `None` for any other statement.
    ///
    /// The client's library sends UTF-8 only. Where the database has an encoding, no such name can be said at all.
    fn as_block(&self, what: &str, sql: &str, before: &str) -> Result<Option<String>, DriverError> {
        if !has_bytes(sql) {
            return Ok(None);
        }
        if !self.has_bytes {
            return Err(DriverError::new(
                ErrorKind::Unsupported,
                format!("{what}: a name is not valid in the encoding of the database"),
            ));
        }
        let digits: String = bytes_of(sql).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Some(format!(
            "DO $seaworthy$BEGIN EXECUTE '{before}' || pg_catalog.convert_from('\\x{digits}', 'SQL_ASCII'); END$seaworthy$"
        )))
    }

    /// Prepares a statement with a name that is no UTF-8 on the server, and returns what runs it.
    async fn prepare_bytes(
        &self,
        cx: &Cx,
        what: &str,
        sql: &str,
    ) -> Result<Option<&'static str>, DriverError> {
        let Some(block) = self.as_block(what, sql, "PREPARE seaworthy AS ")? else { return Ok(None) };
        // What an earlier one left behind goes first: after a failed statement nothing could be said any more.
        let earlier = "DO $seaworthy$BEGIN IF EXISTS (SELECT 1 FROM pg_catalog.pg_prepared_statements \
                       WHERE name = 'seaworthy') THEN EXECUTE 'DEALLOCATE seaworthy'; END IF; END$seaworthy$";
        match cx.run(self.client.batch_execute(&format!("{earlier}; {block}"))).await {
            Ok(Ok(())) => Ok(Some("EXECUTE seaworthy")),
            Ok(Err(error)) => Err(failed(what, error)),
            Err(stop) => Err(self.stopped(stop).await),
        }
    }

    /// Copies rows into a table: `statement` is a COPY that reads from the client, `parts` are its data, or why there are no
    /// more of them. Returns the number of rows.
    ///
    /// An error of the data, or a stop, ends the COPY as failed; the transaction is then the server's to forget.
    pub(super) async fn copy_in(
        &self,
        cx: &Cx,
        what: &str,
        statement: &str,
        mut parts: mpsc::Receiver<Result<Vec<u8>, DriverError>>,
        told: impl Fn(usize),
    ) -> Result<u64, CopyError> {
        let begun = cx.run(self.client.copy_in::<str, Cursor<Vec<u8>>>(statement)).await;
        let sink = match begun {
            Ok(begun) => begun.map_err(|error| refused(what, error))?,
            Err(stop) => return Err(CopyError::Data(self.stopped(stop).await)),
        };
        let mut sink = std::pin::pin!(sink);
        loop {
            // Dropped without its end, the sink tells the server that the COPY has failed.
            let part = match cx.run(parts.recv()).await {
                Ok(None) => break,
                Ok(Some(part)) => part.map_err(CopyError::Data)?,
                Err(stop) => return Err(CopyError::Data(self.stopped(stop).await)),
            };
            let length = part.len();
            match cx.run(sink.send(Cursor::new(part))).await {
                Ok(Ok(())) => told(length),
                // The server has refused something already; its own words come with the end.
                Ok(Err(error)) => {
                    let error = sink.as_mut().finish().await.err().unwrap_or(error);
                    return Err(refused(what, error));
                }
                Err(stop) => return Err(CopyError::Data(self.stopped(stop).await)),
            }
        }
        match cx.run(sink.finish()).await {
            Ok(rows) => rows.map_err(|error| refused(what, error)),
            Err(stop) => Err(CopyError::Data(self.stopped(stop).await)),
        }
    }

    /// Runs one query of a user's, which must be a single statement with a single column and a single row; its value as
    /// the text that the server makes of it, `None` for null.
    pub(super) async fn one_value(
        &self,
        cx: &Cx,
        what: &str,
        sql: &str,
    ) -> Result<Option<String>, DriverError> {
        // Preparing refuses more than one statement; the simple protocol returns any type as text.
        let prepared = cx.run(self.client.prepare(sql)).await?.map_err(|error| failed(what, error))?;
        if prepared.columns().len() != 1 {
            let count = prepared.columns().len();
            return Err(DriverError::new(
                ErrorKind::Refused,
                format!("{what}: it returns {count} columns, not one"),
            ));
        }
        let messages = match cx.run(self.client.simple_query(sql)).await {
            Ok(messages) => messages.map_err(|error| failed(what, error))?,
            Err(stop) => return Err(self.stopped(stop).await),
        };
        let mut rows = messages.iter().filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => {
                Some(row.try_get(0).map(|text| text.map(str::to_owned)))
            }
            _ => None,
        });
        match (rows.next(), rows.next()) {
            (Some(value), None) => value.map_err(|error| {
                DriverError::new(ErrorKind::Refused, format!("{what}: its value is not UTF-8")).because(error)
            }),
            (None, _) => Err(DriverError::new(ErrorKind::Refused, format!("{what}: it returns no row"))),
            (Some(_), Some(_)) => {
                Err(DriverError::new(ErrorKind::Refused, format!("{what}: it returns more than one row")))
            }
        }
    }

    /// Cancels the query on the server, within a grace period that outlives the run's own end.
    async fn stopped(&self, stop: seaworthy_interface::Stop) -> DriverError {
        let error = DriverError::from(stop);
        match tokio::time::timeout(CANCEL_GRACE, self.cancel.cancel_query(NoTls)).await {
            Ok(Ok(())) => error,
            Ok(Err(_)) | Err(_) => error.hint(
                "a query may still run on the server; it ends when it notices that the connection is gone",
            ),
        }
    }
}
