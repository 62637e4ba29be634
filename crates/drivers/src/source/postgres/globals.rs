//! What a database needs from outside itself: roles, memberships, settings, its own properties.
//!
//! Stored in the copy twice: as JSON, from which Seaworthy restores over a connection of its own, and as `globals.sql`
//! for people without it. Passwords of roles are left out: reading them takes a superuser, and a backup role is none.
//! The JSON holds values of settings, so it stays inside the encrypted copy; the witness has digests of them.
//!
//! Most of this lives in catalogues that all databases of a cluster share, and those have no encoding: a name there is
//! the bytes that it was made with. They are read as bytes and made again as the same bytes, because pg_dump and
//! pg_restore repeat bytes too: a role that was made as `é` in a UTF8 database owns tables of a LATIN1 database under
//! those two bytes, and only a role with the same two bytes can own them again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use seaworthy_interface::{Cx, DriverError, ErrorKind};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::witness::postgres::{DatabaseFacts, printable};
use serde::{Deserialize, Serialize};

use super::catalog::{digest, grants_by, role};
use super::names::{bytes_of, hexadecimal, identifier, literal, split_list};
use super::session::{Session, flag, optional, optional_bytes, parsed, text, text_bytes};

/// Settings whose value is a list of names, each of which is quoted by itself.
const LISTS: &[&str] = &[
    "search_path",
    "temp_tablespaces",
    "local_preload_libraries",
    "session_preload_libraries",
    "shared_preload_libraries",
    "unix_socket_directories",
];

/// Condition that a name is not one of the server's own: a comparison of bytes, which no invalid one disturbs.
fn given(name: &str) -> String {
    format!("({name} < 'pg_' OR {name} >= 'pg`')")
}

/// What separates the grants of a database: a name may hold a space.
const GRANTS: char = '\u{1f}';
/// The comment on the database with alias `d`.
const DATABASE_COMMENT: &str = "(SELECT s.description FROM pg_shdescription s \
                                WHERE s.classoid = 'pg_database'::regclass AND s.objoid = d.oid)";

/// A role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Role {
    name: String,
    is_superuser: bool,
    inherits: bool,
    creates_roles: bool,
    creates_databases: bool,
    logs_in: bool,
    replicates: bool,
    bypasses_row_security: bool,
    connection_limit: i64,
    valid_until: Option<String>,
    comment: Option<String>,
    member_of: Vec<Membership>,
}

/// A membership, with its options where they are not the default ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Membership {
    role: String,
    admin: bool,
    inherit: Option<bool>,
    set: Option<bool>,
}

/// A setting of a role, of the database, or of both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Setting {
    /// Whether it holds in this database only.
    in_database: bool,
    /// The role; every role where absent.
    role: Option<String>,
    name: String,
    value: String,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Globals {
    /// Version of this shape; 1.
    pub(super) version: u32,
    /// Roles of the cluster, without those that every cluster has.
    pub(super) roles: Vec<Role>,
    /// Settings of roles and of the database.
    pub(super) settings: Vec<Setting>,
    /// Properties of the database; its comment is beside it, because facts hold only a digest.
    pub(super) database: DatabaseFacts,
    /// The database's comment.
    pub(super) database_comment: Option<String>,
    /// Extensions: name and version.
    pub(super) extensions: Vec<(String, String)>,
    /// Names of subscriptions, which are never restored: they would reach their publisher.
    pub(super) subscriptions: Vec<String>,
    /// Tablespaces in use, which a restore into one directory folds together.
    pub(super) tablespaces: Vec<String>,
    /// Whether the database has a schema `public`; a new one always has.
    pub(super) has_public: bool,
}

impl Globals {
    /// Reads them in the session's snapshot.
    pub(super) async fn read(
        cx: &Cx,
        session: &Session,
        database: DatabaseFacts,
    ) -> Result<Self, DriverError> {
        let one_column = |rows: Vec<tokio_postgres::Row>| -> Result<Vec<String>, DriverError> {
            let mut names = rows.iter().map(|row| text_bytes(row, 0)).collect::<Result<Vec<_>, _>>()?;
            names.sort();
            Ok(names)
        };
        let mut extensions = Vec::new();
        for row in session
            .query(cx, "list the extensions", "SELECT extname, extversion FROM pg_extension ORDER BY 1")
            .await?
        {
            extensions.push((text(&row, 0)?, text(&row, 1)?));
        }
        let subscriptions = one_column(
            session
                .query(
                    cx,
                    "list the subscriptions",
                    &format!(
                        "SELECT {} FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid \
                         WHERE d.datname = current_database()",
                        hexadecimal("s.subname::text")
                    ),
                )
                .await?,
        )?;
        let tablespaces = one_column(
            session
                .query(
                    cx,
                    "list the tablespaces",
                    &format!(
                        "SELECT DISTINCT {} FROM pg_tablespace t JOIN pg_class c ON c.reltablespace = t.oid \
                         WHERE {}",
                        hexadecimal("t.spcname::text"),
                        given("t.spcname")
                    ),
                )
                .await?,
        )?;
        let comment = session
            .row(
                cx,
                "read the database's comment",
                &format!(
                    "SELECT {}, EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = 'public')::text \
                     FROM pg_database d WHERE d.datname = current_database()",
                    hexadecimal(DATABASE_COMMENT)
                ),
            )
            .await?;
        Ok(Self {
            version: 1,
            roles: roles(cx, session).await?,
            settings: settings(cx, session).await?,
            database,
            database_comment: optional_bytes(&comment, 0)?,
            extensions,
            subscriptions,
            tablespaces,
            has_public: flag(&comment, 1)?,
        })
    }

    /// Each role as a digest.
    pub(super) fn role_digests(&self) -> BTreeMap<String, String> {
        self.roles.iter().map(|role| (role.name.clone(), digest(format!("{role:?}").as_bytes()))).collect()
    }

    /// Each setting as a digest of its value.
    pub(super) fn setting_digests(&self) -> BTreeMap<String, String> {
        self.settings
            .iter()
            .map(|setting| {
                let key = format!(
                    "{}/{}/{}",
                    if setting.in_database { "this database" } else { "every database" },
                    setting.role.as_deref().unwrap_or("every role"),
                    setting.name
                );
                (key, digest(setting.value.as_bytes()))
            })
            .collect()
    }

    /// Statements that make the roles; `existing` is what a new cluster has of its own.
    fn role_statements(&self, existing: &str) -> Vec<String> {
        let mut statements = Vec::new();
        for role in &self.roles {
            let verb = if role.name == existing { "ALTER" } else { "CREATE" };
            statements.push(format!("{verb} ROLE {} WITH {}", identifier(&role.name), role.attributes()));
            if let Some(comment) = &role.comment {
                statements.push(format!(
                    "COMMENT ON ROLE {} IS {}",
                    identifier(&role.name),
                    literal(comment)
                ));
            }
        }
        for role in &self.roles {
            for membership in &role.member_of {
                let mut options = Vec::new();
                if membership.admin {
                    options.push("ADMIN OPTION".to_owned());
                }
                let detailed = membership.inherit.is_some() || membership.set.is_some();
                if detailed {
                    let word = |value: bool| if value { "TRUE" } else { "FALSE" };
                    options.clear();
                    options.push(format!("ADMIN {}", word(membership.admin)));
                    options.extend(membership.inherit.map(|value| format!("INHERIT {}", word(value))));
                    options.extend(membership.set.map(|value| format!("SET {}", word(value))));
                }
                let with =
                    if options.is_empty() { String::new() } else { format!(" WITH {}", options.join(", ")) };
                statements.push(format!(
                    "GRANT {} TO {}{with}",
                    identifier(&membership.role),
                    identifier(&role.name)
                ));
            }
        }
        statements
    }

    /// The statement that makes the database.
    pub(super) fn create_database(&self, name: &str, server_version: u32) -> String {
        let facts = &self.database;
        let mut statement = format!(
            "CREATE DATABASE {} WITH TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}",
            identifier(name),
            literal(&facts.encoding),
            literal(&facts.collate),
            literal(&facts.ctype)
        );
        if server_version >= 150_000 {
            write!(statement, " LOCALE_PROVIDER {}", identifier(&facts.provider))
                .expect("writing to a String cannot fail");
        }
        if let Some(locale) = &facts.locale {
            let keyword = if facts.provider == "builtin" { "BUILTIN_LOCALE" } else { "ICU_LOCALE" };
            write!(statement, " {keyword} {}", literal(locale)).expect("writing to a String cannot fail");
        }
        if let Some(rules) = &facts.icu_rules {
            write!(statement, " ICU_RULES {}", literal(rules)).expect("writing to a String cannot fail");
        }
        statement
    }

    /// Statements that give the new database its owner, limit, grants and comment.
    pub(super) fn database_statements(&self, name: &str) -> Vec<String> {
        let facts = &self.database;
        let name = identifier(name);
        let mut statements = vec![format!("ALTER DATABASE {name} OWNER TO {}", facts.owner)];
        if facts.connection_limit >= 0 {
            statements.push(format!("ALTER DATABASE {name} CONNECTION LIMIT {}", facts.connection_limit));
        }
        if let Some(comment) = &self.database_comment {
            statements.push(format!("COMMENT ON DATABASE {name} IS {}", literal(comment)));
        }
        statements.push(format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC, {}", facts.owner));
        for grant in &facts.grants {
            // The grantee is already an identifier, quoted by the server where that is needed.
            let Some((grantee, privilege)) = grant.rsplit_once('=') else { continue };
            let (privilege, option) = match privilege.strip_suffix('*') {
                Some(privilege) => (privilege, " WITH GRANT OPTION"),
                None => (privilege, ""),
            };
            let option = if grantee == facts.owner { "" } else { option };
            statements.push(format!("GRANT {privilege} ON DATABASE {name} TO {grantee}{option}"));
        }
        statements
    }

    /// Statements that grant what roles may do with parameters of the server.
    fn parameter_statements(&self) -> Vec<String> {
        let granted = |grant: &String| {
            let (parameter, grant) = grant.split_once(": ")?;
            // The grantee is already an identifier, quoted by the server where that is needed.
            let (grantee, privilege) = grant.rsplit_once('=')?;
            let parts: Vec<String> = parameter.split('.').map(identifier).collect();
            let (privilege, option) = match privilege.strip_suffix('*') {
                Some(privilege) => (privilege, " WITH GRANT OPTION"),
                None => (privilege, ""),
            };
            Some(format!("GRANT {privilege} ON PARAMETER {} TO {grantee}{option}", parts.join(".")))
        };
        self.database.parameters.iter().flatten().filter_map(granted).collect()
    }

    /// Statements that set the settings.
    pub(super) fn setting_statements(&self, database: &str) -> Vec<String> {
        self.settings
            .iter()
            .map(|setting| {
                let subject = match (&setting.role, setting.in_database) {
                    (Some(role), true) => {
                        format!("ROLE {} IN DATABASE {}", identifier(role), identifier(database))
                    }
                    (Some(role), false) => format!("ROLE {}", identifier(role)),
                    (None, true) => format!("DATABASE {}", identifier(database)),
                    (None, false) => "ROLE ALL".to_owned(),
                };
                let value = if LISTS.contains(&setting.name.as_str()) {
                    let elements = split_list(&setting.value);
                    if elements.is_empty() {
                        literal("")
                    } else {
                        elements.iter().map(|element| literal(element)).collect::<Vec<_>>().join(", ")
                    }
                } else {
                    literal(&setting.value)
                };
                format!("ALTER {subject} SET {} TO {value}", identifier(&setting.name))
            })
            .collect()
    }

    /// Makes the roles in a new cluster whose first superuser is `bootstrap`.
    pub(super) async fn restore_roles(
        &self,
        cx: &Cx,
        session: &Session,
        bootstrap: &str,
    ) -> Result<(), DriverError> {
        for statement in self.role_statements(bootstrap) {
            session
                .execute(cx, "restore the roles", &statement)
                .await
                .map_err(|error| error.code(FindingCode::OwnersOrGrants))?;
        }
        Ok(())
    }

    /// Gives the new database what was recorded of it, and the roles their settings.
    ///
    /// A setting that this server does not accept (of a library that is not installed) becomes a finding, because the
    /// check of settings will name it as missing and somebody will ask why.
    pub(super) async fn restore_properties(
        &self,
        cx: &Cx,
        session: &Session,
        database: &str,
    ) -> Result<Vec<Finding>, DriverError> {
        for statement in self.database_statements(database) {
            session.execute(cx, "restore the database's properties", &statement).await?;
        }
        let mut findings = self.restore_settings(cx, session, database, |_| true).await?;
        for statement in self.parameter_statements() {
            let what = "restore a grant on a parameter";
            findings.extend(unless_refused(session.execute(cx, what, &statement).await, &statement)?);
        }
        Ok(findings)
    }

    /// Gives a new database for people its own settings; no role is touched.
    pub(super) async fn restore_database_settings(
        &self,
        cx: &Cx,
        session: &Session,
        database: &str,
    ) -> Result<Vec<Finding>, DriverError> {
        self.restore_settings(cx, session, database, |setting| setting.in_database && setting.role.is_none())
            .await
    }

    async fn restore_settings(
        &self,
        cx: &Cx,
        session: &Session,
        database: &str,
        wanted: impl Fn(&Setting) -> bool,
    ) -> Result<Vec<Finding>, DriverError> {
        let mut findings = Vec::new();
        for (setting, statement) in self.settings.iter().zip(self.setting_statements(database)) {
            if !wanted(setting) {
                continue;
            }
            let set = session.execute(cx, "restore a setting", &statement).await;
            findings.extend(unless_refused(set, &setting.name)?);
        }
        Ok(findings)
    }

    /// Everything as a script for `psql`, for people without Seaworthy.
    ///
    /// Names are the bytes that they are, which `client_encoding` says; a server that cannot hold them refuses them.
    pub(super) fn script(&self, bootstrap: &str, server_version: u32) -> Vec<u8> {
        let name = &self.database.name;
        let mut script = String::from(
            "-- Roles, settings and properties that the archive beside this file needs.\n\
             -- Restore: run this as a superuser, then `pg_restore --format=directory --dbname=<database> database`.\n\
             -- Passwords of roles are not part of a backup; set them with ALTER ROLE ... PASSWORD.\n\
             SET client_encoding TO 'SQL_ASCII';\n\
             SET standard_conforming_strings TO on;\n",
        );
        let statements = self
            .role_statements(bootstrap)
            .into_iter()
            .chain([self.create_database(name, server_version)])
            .chain(self.database_statements(name))
            .chain(self.setting_statements(name))
            .chain(self.parameter_statements());
        for statement in statements {
            script.push_str(&statement);
            script.push_str(";\n");
        }
        bytes_of(&script)
    }
}

/// What a server refuses of `what` as a finding, any other error as one.
fn unless_refused(result: Result<(), DriverError>, what: &str) -> Result<Option<Finding>, DriverError> {
    match result {
        Ok(()) => Ok(None),
        Err(error) if matches!(error.kind, ErrorKind::Stopped(_) | ErrorKind::Unreachable) => Err(error),
        Err(error) => {
            let reason = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            let detail = format!("the server refuses this setting: {reason}");
            Ok(Some(Finding::new(FindingCode::EnvOther, printable(what), detail)))
        }
    }
}

impl Role {
    fn attributes(&self) -> String {
        let word = |has: bool, word: &str| if has { word.to_owned() } else { format!("NO{word}") };
        let mut attributes = [
            word(self.is_superuser, "SUPERUSER"),
            word(self.inherits, "INHERIT"),
            word(self.creates_roles, "CREATEROLE"),
            word(self.creates_databases, "CREATEDB"),
            word(self.logs_in, "LOGIN"),
            word(self.replicates, "REPLICATION"),
            word(self.bypasses_row_security, "BYPASSRLS"),
            format!("CONNECTION LIMIT {}", self.connection_limit),
        ]
        .join(" ");
        if let Some(until) = &self.valid_until {
            write!(attributes, " VALID UNTIL {}", literal(until)).expect("writing to a String cannot fail");
        }
        attributes
    }
}

/// Name of the cluster's first superuser.
pub(super) async fn bootstrap_role(cx: &Cx, session: &Session) -> Result<String, DriverError> {
    let sql = format!("SELECT {} FROM pg_roles WHERE oid = 10", hexadecimal("rolname::text"));
    text_bytes(&session.row(cx, "ask for the first superuser", &sql).await?, 0)
}

/// Names of all roles of the cluster.
pub(super) async fn role_names(cx: &Cx, session: &Session) -> Result<BTreeSet<String>, DriverError> {
    let sql = format!("SELECT {} FROM pg_roles", hexadecimal("rolname::text"));
    session.query(cx, "list the names of roles", &sql).await?.iter().map(|row| text_bytes(row, 0)).collect()
}

/// Properties of the database that the session is connected to.
pub(super) async fn database(cx: &Cx, session: &Session) -> Result<DatabaseFacts, DriverError> {
    let version = session.version;
    let provider = if version >= 150_000 {
        "CASE d.datlocprovider WHEN 'c' THEN 'libc' WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' END"
    } else {
        "'libc'"
    };
    let locale = if version >= 170_000 {
        "d.datlocale"
    } else if version >= 150_000 {
        "d.daticulocale"
    } else {
        "NULL"
    };
    let rules = if version >= 160_000 { "d.daticurules" } else { "NULL" };
    let collation_version = if version >= 150_000 { "d.datcollversion" } else { "NULL" };
    let sql = format!(
        "SELECT {}, pg_encoding_to_char(d.encoding), {}, {}, ({provider})::text, {}, {}, {collation_version}::text, \
         {}, d.datconnlimit::text, {}, {}, pg_database_size(d.oid)::text FROM pg_database d \
         WHERE d.datname = current_database()",
        hexadecimal("d.datname::text"),
        hexadecimal("d.datcollate::text"),
        hexadecimal("d.datctype::text"),
        hexadecimal(&format!("{locale}::text")),
        hexadecimal(&format!("{rules}::text")),
        hexadecimal("d.datdba::regrole::text"),
        hexadecimal(&grants_by("d.datacl", "d", "d.datdba", GRANTS, |role| format!("{role}::regrole::text"))),
        hexadecimal(DATABASE_COMMENT),
    );
    let row = session.row(cx, "read the database's properties", &sql).await?;
    let acl = optional_bytes(&row, 10)?.unwrap_or_default();
    Ok(DatabaseFacts {
        name: text_bytes(&row, 0)?,
        encoding: text(&row, 1)?,
        collate: text_bytes(&row, 2)?,
        ctype: text_bytes(&row, 3)?,
        provider: text(&row, 4)?,
        locale: optional_bytes(&row, 5)?,
        icu_rules: optional_bytes(&row, 6)?,
        collation_version: optional(&row, 7)?,
        owner: text_bytes(&row, 8)?,
        connection_limit: parsed(&row, 9)?,
        grants: acl.split(GRANTS).filter(|line| !line.is_empty()).map(str::to_owned).collect(),
        comment: optional_bytes(&row, 11)?.map(|comment| digest(comment.as_bytes())),
        size_bytes: parsed(&row, 12)?,
        parameters: Some(parameters(cx, session).await?),
        mappings: Some(mappings(cx, session).await?),
    })
}

/// Grants on parameters of the server. Those of the first superuser, who owns all of them, are the same everywhere.
async fn parameters(cx: &Cx, session: &Session) -> Result<Vec<String>, DriverError> {
    if session.version < 150_000 {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT {} FROM pg_parameter_acl p, aclexplode(p.paracl) a WHERE a.grantee <> 10",
        hexadecimal(
            "p.parname || ': ' || CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END || '=' \
             || a.privilege_type || CASE WHEN a.is_grantable THEN '*' ELSE '' END"
        )
    );
    let rows = session.query(cx, "list the grants on parameters", &sql).await?;
    // Whoever granted it: several may have.
    let grants = rows.iter().map(|row| text_bytes(row, 0)).collect::<Result<BTreeSet<_>, _>>()?;
    Ok(grants.into_iter().collect())
}

/// Names of the options of each user mapping; `None` where the server hides them from this role, as it then does from `pg_dump`.
async fn mappings(cx: &Cx, session: &Session) -> Result<BTreeMap<String, Option<Vec<String>>>, DriverError> {
    // The condition is the one of the view itself, which shows a mapping without options and one that is hidden alike.
    let sql = format!(
        "SELECT format('mapping of %s on %I', CASE m.umuser WHEN 0 THEN 'PUBLIC' ELSE {} END, m.srvname), \
         ((SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = current_user) \
         OR (m.umuser <> 0 AND m.usename = current_user AND (pg_has_role(s.srvowner, 'USAGE') \
         OR has_server_privilege(s.oid, 'USAGE'))) OR (m.umuser = 0 AND pg_has_role(s.srvowner, 'USAGE')))::text, \
         (SELECT string_agg(split_part(o.v, '=', 1), chr(30) ORDER BY o.v COLLATE \"C\") \
         FROM unnest(m.umoptions) o(v)) FROM pg_user_mappings m JOIN pg_foreign_server s ON s.oid = m.srvid",
        role("m.umuser")
    );
    let mut mappings = BTreeMap::new();
    for row in session.query(cx, "list the user mappings", &sql).await? {
        let options = optional(&row, 2)?.unwrap_or_default();
        let mut options: Vec<String> =
            options.split('\u{1e}').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        options.sort();
        mappings.insert(text(&row, 0)?, flag(&row, 1)?.then_some(options));
    }
    Ok(mappings)
}

async fn roles(cx: &Cx, session: &Session) -> Result<Vec<Role>, DriverError> {
    let (inherit, set) = if session.version >= 160_000 {
        ("m.inherit_option::text", "m.set_option::text")
    } else {
        ("NULL::text", "NULL::text")
    };
    let sql = format!(
        "SELECT {}, {}, m.admin_option::text, {inherit}, {set} FROM pg_auth_members m JOIN pg_roles u \
         ON u.oid = m.member JOIN pg_roles g ON g.oid = m.roleid WHERE {}",
        hexadecimal("u.rolname::text"),
        hexadecimal("g.rolname::text"),
        given("u.rolname")
    );
    let mut memberships: BTreeMap<String, Vec<Membership>> = BTreeMap::new();
    for row in session.query(cx, "list the memberships", &sql).await? {
        let option = |column| -> Result<Option<bool>, DriverError> {
            Ok(optional(&row, column)?.map(|value| value.starts_with('t')))
        };
        memberships.entry(text_bytes(&row, 0)?).or_default().push(Membership {
            role: text_bytes(&row, 1)?,
            admin: flag(&row, 2)?,
            inherit: option(3)?,
            set: option(4)?,
        });
    }
    let mut roles = Vec::new();
    let sql = format!(
        "SELECT {}, r.rolsuper::text, r.rolinherit::text, r.rolcreaterole::text, r.rolcreatedb::text, \
         r.rolcanlogin::text, r.rolreplication::text, r.rolbypassrls::text, r.rolconnlimit::text, \
         r.rolvaliduntil::text, {} FROM pg_roles r WHERE {} \
         ORDER BY r.rolname::text COLLATE \"C\"",
        hexadecimal("r.rolname::text"),
        hexadecimal("shobj_description(r.oid, 'pg_authid')"),
        given("r.rolname")
    );
    for row in session.query(cx, "list the roles", &sql).await? {
        let name = text_bytes(&row, 0)?;
        let mut member_of = memberships.remove(&name).unwrap_or_default();
        member_of.sort();
        member_of.dedup();
        roles.push(Role {
            member_of,
            is_superuser: flag(&row, 1)?,
            inherits: flag(&row, 2)?,
            creates_roles: flag(&row, 3)?,
            creates_databases: flag(&row, 4)?,
            logs_in: flag(&row, 5)?,
            replicates: flag(&row, 6)?,
            bypasses_row_security: flag(&row, 7)?,
            connection_limit: parsed(&row, 8)?,
            valid_until: optional(&row, 9)?,
            comment: optional_bytes(&row, 10)?,
            name,
        });
    }
    Ok(roles)
}

async fn settings(cx: &Cx, session: &Session) -> Result<Vec<Setting>, DriverError> {
    let sql = format!(
        "SELECT (s.setdatabase <> 0)::text, {}, {} FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole \
         LEFT JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) c(v) \
         WHERE (s.setdatabase = 0 OR d.datname = current_database()) \
         AND (s.setrole = 0 OR {}) \
         ORDER BY 1, r.rolname::text COLLATE \"C\", c.v COLLATE \"C\"",
        hexadecimal("CASE WHEN s.setrole <> 0 THEN r.rolname::text END"),
        hexadecimal("c.v"),
        given("r.rolname")
    );
    let mut settings = Vec::new();
    for row in session.query(cx, "list the settings", &sql).await? {
        let assignment = text_bytes(&row, 2)?;
        let Some((name, value)) = assignment.split_once('=') else { continue };
        settings.push(Setting {
            in_database: flag(&row, 0)?,
            role: optional_bytes(&row, 1)?,
            name: name.to_owned(),
            value: value.to_owned(),
        });
    }
    Ok(settings)
}
