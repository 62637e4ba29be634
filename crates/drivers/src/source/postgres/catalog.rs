//! What the catalogue says: every object's identity and canonical definition, as one digest each.
//!
//! A definition must be the same text before a dump and after its restore, or a healthy drill would raise an alarm. So
//! there are no oids in it, no attribute numbers (a dropped column leaves a gap that a restore closes), no names that a
//! restore makes anew (constraints that partitions inherit), no owners of extensions, and what the server deparses is
//! brought to a fixed point first (`canonical`).
//!
//! The same statements run on the source and on the restore. What a role may not see would differ between the two, so
//! nothing here depends on a privilege.

use std::collections::BTreeMap;

use seaworthy_interface::{Cx, DriverError};
use seaworthy_model::witness::postgres::{Definition, ObjectClass};
use sha2::{Digest as _, Sha256};

use super::meanwhile::{GONE, is_gone};
use super::names::{escaped, literals};
use super::session::{Session, text};

/// What of a database is looked at.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    /// Schemas left out on purpose.
    pub(super) exclude_schemas: Vec<String>,
    /// Oids of relations left out on purpose; empty in a restore, where they do not exist.
    pub(super) exclude_relations: Vec<u32>,
    /// Whether invalid indexes count: not on a source, whose dump leaves them out; always in a restore.
    pub(super) with_invalid_indexes: bool,
    /// Whether tables and sequences that a recovery empties are left out.
    pub(super) without_unlogged: bool,
}

impl View {
    /// Condition that the schema with alias `n` is in view.
    pub(super) fn schema(&self) -> String {
        let mut condition = "(n.nspname !~ '^pg_' AND n.nspname <> 'information_schema')".to_owned();
        if !self.exclude_schemas.is_empty() {
            condition = format!("({condition} AND n.nspname NOT IN ({}))", literals(&self.exclude_schemas));
        }
        condition
    }

    /// Condition that the relation with alias `c` holds what is to be copied: not what its session alone sees, and not what a
    /// recovery empties where that is left out.
    pub(super) fn kept(&self) -> &'static str {
        if self.without_unlogged { "c.relpersistence = 'p'" } else { "c.relpersistence <> 't'" }
    }

    /// Condition that the relation with this oid is in view.
    pub(super) fn relation(&self, oid: &str) -> String {
        if self.exclude_relations.is_empty() {
            return "true".to_owned();
        }
        let oids: Vec<String> = self.exclude_relations.iter().map(u32::to_string).collect();
        format!("{oid} NOT IN ({})", oids.join(", "))
    }
}

/// Condition that an object belongs to no extension.
pub(super) fn own(catalogue: &str, oid: &str) -> String {
    format!(
        "NOT EXISTS (SELECT 1 FROM pg_depend x WHERE x.classid = '{catalogue}'::regclass AND x.objid = {oid} \
         AND x.objsubid = 0 AND x.deptype = 'e')"
    )
}

/// A list of texts as one text in which nulls are visible and nothing runs together.
fn packed(parts: &[&str]) -> String {
    format!("array_to_string(ARRAY[{}]::text[], chr(31), chr(26))", parts.join(", "))
}

/// A `text[]` column, sorted.
fn sorted(column: &str) -> String {
    format!("(SELECT string_agg(o, chr(30) ORDER BY o COLLATE \"C\") FROM unnest({column}) o)")
}

/// Grants as `grantee=PRIVILEGE`, sorted, with the defaults written out. Grantors are left out: a restore grants as the
/// owner what a superuser had granted.
pub(super) fn grants(acl: &str, kind: &str, owner: &str) -> String {
    grants_by(acl, kind, owner, ' ', role)
}

/// The same with another separator, and with names of roles as `named` reads them from an oid.
pub(super) fn grants_by(
    acl: &str,
    kind: &str,
    owner: &str,
    separator: char,
    named: impl Fn(&str) -> String,
) -> String {
    grants_of_by(&format!("coalesce({acl}, acldefault('{kind}', {owner}))"), separator, named)
}

fn grants_of(acl: &str) -> String {
    grants_of_by(acl, ' ', role)
}

fn grants_of_by(acl: &str, separator: char, named: impl Fn(&str) -> String) -> String {
    format!(
        "(SELECT string_agg(g.line, '{separator}' ORDER BY g.line COLLATE \"C\") FROM (SELECT DISTINCT \
         CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE {} END || '=' || a.privilege_type \
         || CASE WHEN a.is_grantable THEN '*' ELSE '' END AS line FROM aclexplode({acl}) a) g)",
        named("a.grantee")
    )
}

/// A role by its oid, quoted where that is needed.
///
/// Roles are shared by all databases, and a name's bytes may mean nothing in this database's encoding: the server would
/// fail to send them. Anywhere but in UTF8 they are therefore sent as ASCII, which leaves most names as they are.
pub(super) fn role(oid: &str) -> String {
    let name = format!("{oid}::regrole::text");
    format!("CASE getdatabaseencoding() WHEN 'UTF8' THEN {name} ELSE {} END", escaped(&name))
}

/// The options that somebody has set for a column. From 15.20 and 17.12 on the server keeps a number of its own among
/// them, `pg_attver`, which no dump contains and every new table gets anew.
const SET_OPTIONS: &str =
    "ARRAY(SELECT own FROM unnest(a.attoptions) own WHERE own NOT LIKE 'pg\\_attver=%')";

/// The columns of the relation with alias `c`.
fn columns(version: u32) -> String {
    let compression = if version >= 140_000 { "a.attcompression::text" } else { "''" };
    let column = packed(&[
        "quote_ident(a.attname)",
        "format_type(a.atttypid, a.atttypmod)",
        "CASE WHEN a.attcollation <> ty.typcollation THEN a.attcollation::regcollation::text END",
        "a.attnotnull::text",
        "a.attidentity::text",
        "a.attgenerated::text",
        "a.attstorage::text",
        compression,
        "coalesce(a.attstattarget, -1)::text",
        &sorted(SET_OPTIONS),
        &sorted("a.attfdwoptions"),
        "pg_get_expr(df.adbin, df.adrelid)",
    ]);
    // A child that was attached with another order of columns gets its parents' order from a restore.
    format!(
        "(SELECT string_agg({column}, chr(29) ORDER BY CASE WHEN inherits.yes THEN a.attname::text END COLLATE \"C\", \
         a.attnum) FROM pg_attribute a JOIN pg_type ty ON ty.oid = a.atttypid \
         LEFT JOIN pg_attrdef df ON df.adrelid = a.attrelid AND df.adnum = a.attnum, \
         (SELECT EXISTS (SELECT 1 FROM pg_inherits h WHERE h.inhrelid = c.oid) AND NOT c.relispartition) AS inherits(yes) \
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)"
    )
}

/// The statements, each returning identities and definitions.
fn statements(version: u32, view: &View) -> Vec<(ObjectClass, String)> {
    let schema = view.schema();
    let in_view = |oid: &str| view.relation(oid);
    let relation_columns = columns(version);
    let parents = "(SELECT string_agg(h.inhparent::regclass::text, chr(30) ORDER BY h.inhseqno) \
                   FROM pg_inherits h WHERE h.inhrelid = c.oid)";
    let mut all: Vec<(ObjectClass, String)> = Vec::new();
    let mut add = |class: ObjectClass, sql: String| all.push((class, sql));

    add(
        ObjectClass::Schemas,
        format!(
            "SELECT quote_ident(n.nspname), 'schema'::text FROM pg_namespace n WHERE {schema} AND {}",
            own("pg_namespace", "n.oid")
        ),
    );
    let table = packed(&[
        "c.relkind::text",
        "c.relpersistence::text",
        "am.amname",
        &sorted("c.reloptions"),
        &sorted("tc.reloptions"),
        "c.relreplident::text",
        "c.relrowsecurity::text",
        "c.relforcerowsecurity::text",
        "CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END",
        "pg_get_expr(c.relpartbound, c.oid)",
        parents,
        "CASE WHEN c.reloftype <> 0 THEN c.reloftype::regtype::text END",
        "fs.srvname",
        &sorted("ft.ftoptions"),
        &relation_columns,
    ]);
    add(
        ObjectClass::Tables,
        format!(
            "SELECT format('%I.%I', n.nspname, c.relname), {table} FROM pg_class c \
             JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am am ON am.oid = c.relam \
             LEFT JOIN pg_class tc ON tc.oid = c.reltoastrelid \
             LEFT JOIN pg_foreign_table ft ON ft.ftrelid = c.oid \
             LEFT JOIN pg_foreign_server fs ON fs.oid = ft.ftserver \
             WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't' AND {schema} AND {} AND {}",
            in_view("c.oid"),
            own("pg_class", "c.oid")
        ),
    );
    let seen = packed(&[
        "pg_get_viewdef(c.oid)",
        &sorted("c.reloptions"),
        "am.amname",
        "CASE WHEN c.relkind = 'm' THEN c.relispopulated::text END",
        &relation_columns,
    ]);
    for (class, kind) in [(ObjectClass::Views, 'v'), (ObjectClass::MaterializedViews, 'm')] {
        add(
            class,
            format!(
                "SELECT format('%I.%I', n.nspname, c.relname), {seen} FROM pg_class c \
                 JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am am ON am.oid = c.relam \
                 WHERE c.relkind = '{kind}' AND c.relpersistence <> 't' AND {schema} AND {} AND {}",
                in_view("c.oid"),
                own("pg_class", "c.oid")
            ),
        );
    }
    add_types(&mut add, version, &schema, &relation_columns);
    let sequence = packed(&[
        "s.seqtypid::regtype::text",
        "s.seqstart::text",
        "s.seqmin::text",
        "s.seqmax::text",
        "s.seqincrement::text",
        "s.seqcache::text",
        "s.seqcycle::text",
        "c.relpersistence::text",
        "(SELECT string_agg(d.deptype::text || d.refobjid::regclass::text || '.' || quote_ident(o.attname), chr(30)) \
         FROM pg_depend d JOIN pg_attribute o ON o.attrelid = d.refobjid AND o.attnum = d.refobjsubid \
         WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass \
         AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i'))",
    ]);
    add(
        ObjectClass::SequenceDefinitions,
        format!(
            "SELECT format('%I.%I', n.nspname, c.relname), {sequence} FROM pg_sequence s \
             JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relpersistence <> 't' AND {schema} AND {} AND {}",
            in_view("c.oid"),
            own("pg_class", "c.oid")
        ),
    );
    add_attached(&mut add, view, &schema);
    add_routines(&mut add, version, &schema);
    add_privileges(&mut add, view, &schema);
    add_rest(&mut add, version, view, &schema);
    all
}

fn add_types(add: &mut impl FnMut(ObjectClass, String), version: u32, schema: &str, relation_columns: &str) {
    let multirange = if version >= 140_000 { "r.rngmultitypid::regtype::text" } else { "NULL" };
    let range = packed(&[
        "r.rngsubtype::regtype::text",
        "(SELECT format('%I.%I', on_.nspname, oc.opcname) FROM pg_opclass oc \
         JOIN pg_namespace on_ ON on_.oid = oc.opcnamespace WHERE oc.oid = r.rngsubopc)",
        "r.rngcollation::regcollation::text",
        "r.rngcanonical::regproc::text",
        "r.rngsubdiff::regproc::text",
        multirange,
    ]);
    let base = packed(&[
        "t.typinput::regproc::text",
        "t.typoutput::regproc::text",
        "t.typreceive::regproc::text",
        "t.typsend::regproc::text",
        "t.typmodin::regproc::text",
        "t.typmodout::regproc::text",
        "t.typanalyze::regproc::text",
        "t.typlen::text",
        "t.typbyval::text",
        "t.typalign::text",
        "t.typstorage::text",
        "t.typcategory::text",
        "t.typispreferred::text",
        "t.typdelim::text",
        "t.typelem::regtype::text",
        "t.typcollation::regcollation::text",
    ]);
    let definition = packed(&[
        "t.typtype::text",
        "t.typdefault",
        "(SELECT string_agg(e.enumlabel, chr(30) ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid)",
        "CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) || chr(30) || t.typnotnull::text \
         || chr(30) || t.typcollation::regcollation::text END",
        &format!("CASE WHEN t.typtype = 'c' THEN {relation_columns} END"),
        &format!(
            "CASE WHEN t.typtype = 'r' THEN (SELECT {range} FROM pg_range r WHERE r.rngtypid = t.oid) END"
        ),
        &format!("CASE WHEN t.typtype IN ('b', 'p') THEN {base} END"),
    ]);
    add(
        ObjectClass::Types,
        format!(
            "SELECT format('%I.%I', n.nspname, t.typname), {definition} FROM pg_type t \
             JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid \
             WHERE t.typtype IN ('e', 'd', 'c', 'r', 'b', 'p') AND (t.typrelid = 0 OR c.relkind = 'c') \
             AND NOT EXISTS (SELECT 1 FROM pg_type ar WHERE ar.typarray = t.oid) AND {schema} AND {}",
            own("pg_type", "t.oid")
        ),
    );
}

/// What hangs on a relation: constraints, indexes, triggers, rules, policies, statistics.
fn add_attached(add: &mut impl FnMut(ObjectClass, String), view: &View, schema: &str) {
    let relation = format!(
        "c.relpersistence <> 't' AND {schema} AND {} AND {}",
        view.relation("c.oid"),
        own("pg_class", "c.oid")
    );
    let constraint = packed(&[
        "k.contype::text",
        "pg_get_constraintdef(k.oid)",
        "k.convalidated::text",
        // Of a key that a partition inherits, this says how it came to be attached.
        "CASE WHEN k.contype = 'c' THEN k.connoinherit::text END",
    ]);
    // A constraint that a partition inherits is named anew by a restore: its identity is its parent's.
    add(
        ObjectClass::Constraints,
        format!(
            "SELECT CASE WHEN k.conparentid = 0 THEN format('%s: %I', k.conrelid::regclass, k.conname) \
             ELSE format('%s: inherited from %s: %I to %s', k.conrelid::regclass, up.conrelid::regclass, up.conname, \
             CASE WHEN k.confrelid <> 0 THEN k.confrelid::regclass::text ELSE 'itself' END) END, {constraint} \
             FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
             LEFT JOIN pg_constraint up ON up.oid = k.conparentid \
             WHERE k.contype IN ('c', 'f', 'p', 'u', 'x') AND {relation} \
             UNION ALL SELECT format('domain %s: %I', k.contypid::regtype, k.conname), {constraint} \
             FROM pg_constraint k JOIN pg_type t ON t.oid = k.contypid JOIN pg_namespace n ON n.oid = t.typnamespace \
             WHERE k.contype = 'c' AND {schema} AND {}",
            own("pg_type", "t.oid")
        ),
    );
    let index = packed(&[
        "pg_get_indexdef(i.indexrelid)",
        "i.indisvalid::text",
        "i.indisready::text",
        "i.indisclustered::text",
        "i.indisreplident::text",
        "(SELECT string_agg(ia.attnum || '=' || coalesce(ia.attstattarget, -1), ',' ORDER BY ia.attnum) \
         FROM pg_attribute ia WHERE ia.attrelid = i.indexrelid AND coalesce(ia.attstattarget, -1) >= 0)",
    ]);
    let valid = if view.with_invalid_indexes {
        "true"
    } else {
        "((i.indisvalid AND i.indisready) OR c.relkind = 'p')"
    };
    add(
        ObjectClass::Indexes,
        format!(
            "SELECT format('%I.%I', n.nspname, ix.relname), {index} FROM pg_index i \
             JOIN pg_class ix ON ix.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid \
             JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind IN ('r', 'p', 'm') AND {valid} AND {relation}"
        ),
    );
    add(
        ObjectClass::Triggers,
        format!(
            "SELECT format('%s: %I', c.oid::regclass, g.tgname), {} FROM pg_trigger g \
             JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE NOT g.tgisinternal AND {relation}",
            packed(&["pg_get_triggerdef(g.oid)", "g.tgenabled::text"])
        ),
    );
    add(
        ObjectClass::Rules,
        format!(
            "SELECT format('%s: %I', c.oid::regclass, w.rulename), {} FROM pg_rewrite w \
             JOIN pg_class c ON c.oid = w.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE w.rulename <> '_RETURN' AND {relation}",
            packed(&["pg_get_ruledef(w.oid)", "w.ev_enabled::text"])
        ),
    );
    add(
        ObjectClass::Policies,
        format!(
            "SELECT format('%s: %I', c.oid::regclass, p.polname), {} FROM pg_policy p \
             JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {relation}",
            packed(&[
                "p.polcmd::text",
                "p.polpermissive::text",
                &format!(
                    "(SELECT string_agg(CASE r.o WHEN 0 THEN 'PUBLIC' ELSE {named} END, chr(30) \
                     ORDER BY r.o::regrole::text COLLATE \"C\") FROM unnest(p.polroles) r(o))",
                    named = role("r.o")
                ),
                "pg_get_expr(p.polqual, p.polrelid)",
                "pg_get_expr(p.polwithcheck, p.polrelid)",
            ])
        ),
    );
    add(
        ObjectClass::Statistics,
        format!(
            "SELECT format('%I.%I', sn.nspname, s.stxname), {} FROM pg_statistic_ext s \
             JOIN pg_namespace sn ON sn.oid = s.stxnamespace JOIN pg_class c ON c.oid = s.stxrelid \
             JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {relation}",
            packed(&["pg_get_statisticsobjdef(s.oid)", "coalesce(s.stxstattarget, -1)::text"])
        ),
    );
}

fn add_routines(add: &mut impl FnMut(ObjectClass, String), version: u32, schema: &str) {
    let body = if version >= 140_000 { "pg_get_function_sqlbody(p.oid)" } else { "NULL" };
    // Columns instead of `pg_get_functiondef`, because columns are read in the snapshot, and of all objects routines are
    // replaced most often while a dump runs.
    let routine = packed(&[
        "p.prokind::text",
        "(SELECT l.lanname FROM pg_language l WHERE l.oid = p.prolang)",
        "p.provolatile::text",
        "p.proisstrict::text",
        "p.prosecdef::text",
        "p.proleakproof::text",
        "p.proparallel::text",
        "p.proretset::text",
        "p.procost::text",
        "p.prorows::text",
        "p.prosupport::regproc::text",
        "p.protrftypes::regtype[]::text",
        &sorted("p.proconfig"),
        "p.prosrc",
        "p.probin",
        "pg_get_function_arguments(p.oid)",
        "pg_get_function_result(p.oid)",
        body,
    ]);
    let aggregate = packed(&[
        "g.aggkind::text",
        "g.aggnumdirectargs::text",
        "g.aggtransfn::regprocedure::text",
        "g.aggfinalfn::regprocedure::text",
        "g.aggcombinefn::regprocedure::text",
        "g.aggserialfn::regprocedure::text",
        "g.aggdeserialfn::regprocedure::text",
        "g.aggmtransfn::regprocedure::text",
        "g.aggminvtransfn::regprocedure::text",
        "g.aggmfinalfn::regprocedure::text",
        "g.aggfinalextra::text",
        "g.aggmfinalextra::text",
        "g.aggfinalmodify::text",
        "g.aggmfinalmodify::text",
        "g.aggsortop::regoperator::text",
        "g.aggtranstype::regtype::text",
        "g.aggtransspace::text",
        "g.aggmtranstype::regtype::text",
        "g.aggmtransspace::text",
        "g.agginitval",
        "g.aggminitval",
        "p.proparallel::text",
        "pg_get_function_arguments(p.oid)",
    ]);
    add(
        ObjectClass::Routines,
        format!(
            "SELECT p.oid::regprocedure::text, CASE WHEN p.prokind = 'a' \
             THEN (SELECT {aggregate} FROM pg_aggregate g WHERE g.aggfnoid = p.oid) \
             ELSE {routine} END FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
             WHERE {schema} AND {} AND NOT EXISTS (SELECT 1 FROM pg_depend i WHERE i.classid = 'pg_proc'::regclass \
             AND i.objid = p.oid AND i.deptype = 'i')",
            own("pg_proc", "p.oid")
        ),
    );
    add(
        ObjectClass::EventTriggers,
        format!(
            "SELECT quote_ident(e.evtname), {} FROM pg_event_trigger e WHERE {}",
            packed(&["e.evtevent", "e.evtfoid::regproc::text", "e.evtenabled::text", &sorted("e.evttags"),]),
            own("pg_event_trigger", "e.oid")
        ),
    );
}

fn add_privileges(add: &mut impl FnMut(ObjectClass, String), view: &View, schema: &str) {
    let in_view = view.relation("c.oid");
    let mut parts = vec![
        format!(
            "SELECT format('%s %I.%I', CASE c.relkind WHEN 'S' THEN 'sequence' WHEN 'v' THEN 'view' \
             WHEN 'm' THEN 'materialized view' WHEN 'c' THEN 'composite' ELSE 'table' END, n.nspname, c.relname), \
             {} || chr(31) || coalesce(CASE c.relkind WHEN 'S' THEN {} ELSE {} END, '') \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't' AND {schema} \
             AND {in_view} AND {}",
            role("c.relowner"),
            grants("c.relacl", "s", "c.relowner"),
            grants("c.relacl", "r", "c.relowner"),
            own("pg_class", "c.oid")
        ),
        format!(
            "SELECT format('column %I.%I.%I', n.nspname, c.relname, a.attname), coalesce({}, '') \
             FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE a.attacl IS NOT NULL AND NOT a.attisdropped AND c.relpersistence <> 't' AND {schema} \
             AND {in_view} AND {}",
            grants_of("a.attacl"),
            own("pg_class", "c.oid")
        ),
        format!(
            "SELECT format('schema %I', n.nspname), {} || chr(31) || coalesce({}, '') \
             FROM pg_namespace n WHERE {schema} AND {}",
            role("n.nspowner"),
            grants("n.nspacl", "n", "n.nspowner"),
            own("pg_namespace", "n.oid")
        ),
        format!(
            "SELECT format('routine %s', p.oid::regprocedure), {} || chr(31) || coalesce({}, '') \
             FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE {schema} AND {} \
             AND NOT EXISTS (SELECT 1 FROM pg_depend i WHERE i.classid = 'pg_proc'::regclass AND i.objid = p.oid \
             AND i.deptype = 'i')",
            role("p.proowner"),
            grants("p.proacl", "f", "p.proowner"),
            own("pg_proc", "p.oid")
        ),
        format!(
            "SELECT format('type %I.%I', n.nspname, t.typname), {} || chr(31) || coalesce({}, '') \
             FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid \
             WHERE t.typtype IN ('e', 'd', 'c', 'r', 'b') AND (t.typrelid = 0 OR c.relkind = 'c') \
             AND NOT EXISTS (SELECT 1 FROM pg_type ar WHERE ar.typarray = t.oid) AND {schema} AND {}",
            role("t.typowner"),
            grants("t.typacl", "T", "t.typowner"),
            own("pg_type", "t.oid")
        ),
    ];
    for (catalogue, word, name, owner, acl, kind) in [
        ("pg_language", "language", "lanname", "lanowner", "lanacl", "l"),
        ("pg_foreign_data_wrapper", "foreign data wrapper", "fdwname", "fdwowner", "fdwacl", "F"),
        ("pg_foreign_server", "server", "srvname", "srvowner", "srvacl", "S"),
    ] {
        parts.push(format!(
            "SELECT format('{word} %I', o.{name}), {} || chr(31) || coalesce({}, '') \
             FROM {catalogue} o WHERE o.oid >= 16384 AND {}",
            role(&format!("o.{owner}")),
            grants(&format!("o.{acl}"), kind, &format!("o.{owner}")),
            own(catalogue, "o.oid")
        ));
    }
    for (catalogue, word, name, owner) in [
        ("pg_publication", "publication", "pubname", "pubowner"),
        ("pg_event_trigger", "event trigger", "evtname", "evtowner"),
    ] {
        parts.push(format!(
            "SELECT format('{word} %I', o.{name}), {} FROM {catalogue} o WHERE {}",
            role(&format!("o.{owner}")),
            own(catalogue, "o.oid")
        ));
    }
    for (catalogue, word, name, space, owner) in [
        ("pg_operator", "operator", "oid::regoperator", "oprnamespace", "oprowner"),
        ("pg_opclass", "operator class", "opcname", "opcnamespace", "opcowner"),
        ("pg_opfamily", "operator family", "opfname", "opfnamespace", "opfowner"),
        ("pg_collation", "collation", "collname", "collnamespace", "collowner"),
        ("pg_conversion", "conversion", "conname", "connamespace", "conowner"),
        ("pg_ts_config", "text search configuration", "cfgname", "cfgnamespace", "cfgowner"),
        ("pg_ts_dict", "text search dictionary", "dictname", "dictnamespace", "dictowner"),
        ("pg_statistic_ext", "statistics", "stxname", "stxnamespace", "stxowner"),
    ] {
        parts.push(format!(
            "SELECT format('{word} %I.%s', n.nspname, o.{name}), string_agg({}, ' ' \
             ORDER BY o.{owner}::regrole::text COLLATE \"C\") FROM {catalogue} o JOIN pg_namespace n ON n.oid = o.{space} \
             WHERE {schema} AND {} GROUP BY 1",
            role(&format!("o.{owner}")),
            own(catalogue, "o.oid")
        ));
    }
    add(ObjectClass::Privileges, parts.join(" UNION ALL "));
    add(
        ObjectClass::DefaultPrivileges,
        format!(
            "SELECT format('%s in %s for %s', {}, coalesce(quote_ident(n.nspname), 'all schemas'), \
             d.defaclobjtype), coalesce({}, '') FROM pg_default_acl d \
             LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace WHERE n.oid IS NULL OR {schema}",
            role("d.defaclrole"),
            grants_of("d.defaclacl")
        ),
    );
}

fn add_rest(add: &mut impl FnMut(ObjectClass, String), version: u32, view: &View, schema: &str) {
    // `public` is the one object of a new database that people comment on.
    let hidden_relation = view.relation("d.objoid");
    let mut hidden_schema = "coalesce(i.schema, '') !~ '^pg_'".to_owned();
    if !view.exclude_schemas.is_empty() {
        let names = literals(&view.exclude_schemas);
        hidden_schema = format!(
            "{hidden_schema} AND coalesce(i.schema, '') NOT IN ({names}) AND i.identity NOT IN ({names})"
        );
    }
    let commented = |columns: &str, catalogue: &str| {
        format!(
            "SELECT {columns} FROM {catalogue} d, LATERAL pg_identify_object(d.classoid, d.objoid, d.objsubid) i \
             WHERE d.classoid <> 'pg_largeobject'::regclass AND {hidden_schema} \
             AND (d.classoid <> 'pg_class'::regclass OR {hidden_relation}) AND (d.objoid >= 16384 \
             OR (d.classoid = 'pg_namespace'::regclass AND i.identity = 'public')) \
             AND NOT EXISTS (SELECT 1 FROM pg_depend x WHERE x.classid = d.classoid AND x.objid = d.objoid \
             AND x.deptype = 'e')"
        )
    };
    add(
        ObjectClass::Comments,
        format!(
            "{} UNION ALL {}",
            commented("i.type || ' ' || i.identity, d.description", "pg_description"),
            commented("'label ' || d.provider || ' ' || i.type || ' ' || i.identity, d.label", "pg_seclabel")
        ),
    );
    add(ObjectClass::Extensions, "SELECT extname::text, extversion FROM pg_extension".to_owned());
    add_operators(add, schema);
    add_text_search(add, schema);
    let locale = if version >= 170_000 {
        "o.colllocale"
    } else if version >= 150_000 {
        "o.colliculocale"
    } else {
        "NULL"
    };
    let rules = if version >= 160_000 { "o.collicurules" } else { "NULL" };
    add(
        ObjectClass::Collations,
        format!(
            "SELECT format('%I.%I', n.nspname, o.collname), {} FROM pg_collation o \
             JOIN pg_namespace n ON n.oid = o.collnamespace WHERE {schema} AND {}",
            packed(&[
                "o.collprovider::text",
                "o.collisdeterministic::text",
                "o.collencoding::text",
                "o.collcollate",
                "o.collctype",
                locale,
                rules,
            ]),
            own("pg_collation", "o.oid")
        ),
    );
    let (filter, columns, schemas) = if version >= 150_000 {
        (
            "pg_get_expr(pr.prqual, pr.prrelid)",
            "(SELECT string_agg(quote_ident(pa.attname), ',' ORDER BY pa.attname::text COLLATE \"C\") \
             FROM pg_attribute pa WHERE pa.attrelid = pr.prrelid AND pa.attnum = ANY (pr.prattrs))",
            "(SELECT string_agg(quote_ident(pn.nspname), chr(30) ORDER BY pn.nspname::text COLLATE \"C\") \
             FROM pg_publication_namespace ps JOIN pg_namespace pn ON pn.oid = ps.pnnspid WHERE ps.pnpubid = o.oid)",
        )
    } else {
        ("NULL", "NULL", "NULL")
    };
    let published = packed(&["pr.prrelid::regclass::text", filter, columns]);
    add(
        ObjectClass::Publications,
        format!(
            "SELECT quote_ident(o.pubname), {} FROM pg_publication o WHERE {}",
            packed(&[
                "o.puballtables::text",
                "o.pubinsert::text",
                "o.pubupdate::text",
                "o.pubdelete::text",
                "o.pubtruncate::text",
                "o.pubviaroot::text",
                &format!(
                    "(SELECT string_agg({published}, chr(29) ORDER BY pr.prrelid::regclass::text COLLATE \"C\") \
                     FROM pg_publication_rel pr WHERE pr.prpubid = o.oid AND {})",
                    view.relation("pr.prrelid")
                ),
                schemas,
            ]),
            own("pg_publication", "o.oid")
        ),
    );
    // An option's value can be a secret; of those that sound like one, only the name counts.
    let options = |column: &str| {
        format!(
            "(SELECT string_agg(CASE WHEN o.v ~* '^[^=]*(pass|secret|token|key)' THEN split_part(o.v, '=', 1) \
             ELSE o.v END, chr(30) ORDER BY o.v COLLATE \"C\") FROM unnest({column}) o(v))"
        )
    };
    add(
        ObjectClass::ForeignServers,
        format!(
            "SELECT format('wrapper %I', w.fdwname), {} FROM pg_foreign_data_wrapper w WHERE {} \
             UNION ALL SELECT format('server %I', s.srvname), {} FROM pg_foreign_server s \
             JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw WHERE {} \
             UNION ALL SELECT format('mapping of %s on %I', CASE m.umuser WHEN 0 THEN 'PUBLIC' \
             ELSE {} END, m.srvname), 'mapping' FROM pg_user_mappings m",
            packed(&[
                "w.fdwhandler::regproc::text",
                "w.fdwvalidator::regproc::text",
                &options("w.fdwoptions")
            ]),
            own("pg_foreign_data_wrapper", "w.oid"),
            packed(&["w.fdwname", "s.srvtype", "s.srvversion", &options("s.srvoptions")]),
            own("pg_foreign_server", "s.oid"),
            role("m.umuser")
        ),
    );
}

fn add_operators(add: &mut impl FnMut(ObjectClass, String), schema: &str) {
    let operator = packed(&[
        "o.oprkind::text",
        "o.oprcode::regprocedure::text",
        "o.oprcom::regoperator::text",
        "o.oprnegate::regoperator::text",
        "o.oprrest::regproc::text",
        "o.oprjoin::regproc::text",
        "o.oprcanmerge::text",
        "o.oprcanhash::text",
    ]);
    let class = packed(&[
        "(SELECT format('%I.%I', fn.nspname, f.opfname) FROM pg_opfamily f JOIN pg_namespace fn \
         ON fn.oid = f.opfnamespace WHERE f.oid = o.opcfamily)",
        "o.opcintype::regtype::text",
        "o.opcdefault::text",
        "o.opckeytype::regtype::text",
    ]);
    let family = packed(&[
        "(SELECT string_agg(concat_ws(' ', ao.amopstrategy, ao.amopopr::regoperator, ao.amoppurpose), chr(30) \
         ORDER BY ao.amopstrategy, ao.amopopr::regoperator::text COLLATE \"C\") FROM pg_amop ao \
         WHERE ao.amopfamily = o.oid)",
        "(SELECT string_agg(concat_ws(' ', ap.amproclefttype::regtype, ap.amprocrighttype::regtype, ap.amprocnum, \
         ap.amproc::regprocedure), chr(30) ORDER BY ap.amproclefttype::regtype::text COLLATE \"C\", \
         ap.amprocrighttype::regtype::text COLLATE \"C\", ap.amprocnum) FROM pg_amproc ap \
         WHERE ap.amprocfamily = o.oid)",
    ]);
    let cast = packed(&["k.castfunc::regprocedure::text", "k.castcontext::text", "k.castmethod::text"]);
    let conversion = packed(&[
        "o.conforencoding::text",
        "o.contoencoding::text",
        "o.conproc::regproc::text",
        "o.condefault::text",
    ]);
    let language = packed(&[
        "l.lanpltrusted::text",
        "l.lanplcallfoid::regproc::text",
        "l.laninline::regproc::text",
        "l.lanvalidator::regproc::text",
    ]);
    let transform = packed(&["f.trffromsql::regprocedure::text", "f.trftosql::regprocedure::text"]);
    add(
        ObjectClass::Operators,
        [
            format!(
                "SELECT format('operator %s', o.oid::regoperator), {operator} FROM pg_operator o \
                 JOIN pg_namespace n ON n.oid = o.oprnamespace WHERE o.oprcode <> 0 AND {schema} AND {}",
                own("pg_operator", "o.oid")
            ),
            format!(
                "SELECT format('operator class %I.%I using %I', n.nspname, o.opcname, m.amname), {class} \
                 FROM pg_opclass o JOIN pg_namespace n ON n.oid = o.opcnamespace JOIN pg_am m ON m.oid = o.opcmethod \
                 WHERE {schema} AND {}",
                own("pg_opclass", "o.oid")
            ),
            format!(
                "SELECT format('operator family %I.%I using %I', n.nspname, o.opfname, m.amname), {family} \
                 FROM pg_opfamily o JOIN pg_namespace n ON n.oid = o.opfnamespace JOIN pg_am m ON m.oid = o.opfmethod \
                 WHERE {schema} AND {}",
                own("pg_opfamily", "o.oid")
            ),
            format!(
                "SELECT format('cast %s to %s', k.castsource::regtype, k.casttarget::regtype), {cast} FROM pg_cast k \
                 WHERE k.oid >= 16384 AND {} AND NOT EXISTS (SELECT 1 FROM pg_depend i \
                 WHERE i.classid = 'pg_cast'::regclass AND i.objid = k.oid AND i.deptype = 'i')",
                own("pg_cast", "k.oid")
            ),
            format!(
                "SELECT format('conversion %I.%I', n.nspname, o.conname), {conversion} FROM pg_conversion o \
                 JOIN pg_namespace n ON n.oid = o.connamespace WHERE {schema} AND {}",
                own("pg_conversion", "o.oid")
            ),
            format!(
                "SELECT format('language %I', l.lanname), {language} FROM pg_language l WHERE l.oid >= 16384 AND {}",
                own("pg_language", "l.oid")
            ),
            format!(
                "SELECT format('access method %I', m.amname), m.amhandler::regproc::text || m.amtype::text FROM pg_am m \
                 WHERE m.oid >= 16384 AND {}",
                own("pg_am", "m.oid")
            ),
            format!(
                "SELECT format('transform for %s in %I', f.trftype::regtype, l.lanname), {transform} \
                 FROM pg_transform f JOIN pg_language l ON l.oid = f.trflang WHERE f.oid >= 16384 AND {}",
                own("pg_transform", "f.oid")
            ),
        ]
        .join(" UNION ALL "),
    );
}

fn add_text_search(add: &mut impl FnMut(ObjectClass, String), schema: &str) {
    let mappings = "(SELECT string_agg(concat_ws(' ', m.maptokentype, m.mapseqno, m.mapdict::regdictionary), chr(30) \
                    ORDER BY m.maptokentype, m.mapseqno) FROM pg_ts_config_map m WHERE m.mapcfg = o.oid)";
    add(
        ObjectClass::TextSearch,
        [
            format!(
                "SELECT format('configuration %I.%I', n.nspname, o.cfgname), {} FROM pg_ts_config o \
                 JOIN pg_namespace n ON n.oid = o.cfgnamespace JOIN pg_ts_parser p ON p.oid = o.cfgparser \
                 WHERE {schema} AND {}",
                packed(&["p.prsname", mappings]),
                own("pg_ts_config", "o.oid")
            ),
            format!(
                "SELECT format('dictionary %I.%I', n.nspname, o.dictname), {} FROM pg_ts_dict o \
                 JOIN pg_namespace n ON n.oid = o.dictnamespace JOIN pg_ts_template t ON t.oid = o.dicttemplate \
                 WHERE {schema} AND {}",
                packed(&["t.tmplname", "o.dictinitoption"]),
                own("pg_ts_dict", "o.oid")
            ),
            format!(
                "SELECT format('parser %I.%I', n.nspname, o.prsname), {} FROM pg_ts_parser o \
                 JOIN pg_namespace n ON n.oid = o.prsnamespace WHERE {schema} AND {}",
                packed(&[
                    "o.prsstart::regproc::text",
                    "o.prstoken::regproc::text",
                    "o.prsend::regproc::text",
                    "o.prsheadline::regproc::text",
                    "o.prslextype::regproc::text",
                ]),
                own("pg_ts_parser", "o.oid")
            ),
            format!(
                "SELECT format('template %I.%I', n.nspname, o.tmplname), {} FROM pg_ts_template o \
                 JOIN pg_namespace n ON n.oid = o.tmplnamespace WHERE {schema} AND {}",
                packed(&["o.tmplinit::regproc::text", "o.tmpllexize::regproc::text"]),
                own("pg_ts_template", "o.oid")
            ),
        ]
        .join(" UNION ALL "),
    );
}

/// Hexadecimal SHA-256.
pub(super) fn digest(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        text.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
        text.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
    }
    text
}

/// Every object's definition, by class and identity.
pub(super) async fn objects(
    cx: &Cx,
    session: &Session,
    view: &View,
) -> Result<BTreeMap<ObjectClass, BTreeMap<String, Definition>>, DriverError> {
    let mut found = BTreeMap::new();
    for (class, sql) in statements(session.version, view) {
        let what = format!("read the definitions of {}", class.word());
        let mut by_identity: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in session.query(cx, &what, &sql).await? {
            let identity = text(&row, 0)?;
            let definition = super::session::optional(&row, 1)?.unwrap_or_default();
            by_identity.entry(identity).or_default().push(definition);
        }
        let definitions = by_identity.into_iter().map(|(identity, mut definitions)| {
            let digest = if class == ObjectClass::Extensions {
                definitions.join(" ")
            } else if definitions.iter().any(|definition| is_gone(class, &identity, definition)) {
                GONE.to_owned()
            } else {
                // Two objects with one identity (constraints that a partition inherits twice) count together.
                definitions.iter_mut().for_each(|definition| *definition = canonical(definition));
                definitions.sort();
                digest(definitions.join("\u{1c}").as_bytes())
            };
            (identity, Definition::certain(digest))
        });
        found.insert(class, definitions.collect());
    }
    Ok(found)
}

/// Brings an expression that the server deparsed to the form that it has after one more parse.
///
/// A dump holds deparsed text, a restore parses it, and three things then look otherwise although they are the same:
/// - `(ARRAY[a, b])::t[]` becomes `ARRAY[(a)::t, (b)::t]`: every `CHECK (x IN ('a', 'b'))` on a `varchar` column;
/// - `((a AND b) AND c)` becomes `(a AND b AND c)`: every `x BETWEEN 1 AND 5 AND ...`;
/// - `'y'::text` in a routine's body gets the name that it always had, `'y'::text AS text`.
///
/// Both sides of a comparison are brought to the later form. Texts and quoted names are passed over.
pub(super) fn canonical(definition: &str) -> String {
    let mut text = definition.to_owned();
    // Each round rewrites the first such place, and every round removes one, so it ends.
    while let Some(rewritten) = rewrite_first(&text) {
        text = rewritten;
    }
    for word in [" AND ", " OR "] {
        if text.contains(word) {
            while let Some(rewritten) = flatten_first(&text, word) {
                text = rewritten;
            }
        }
    }
    unnamed_casts(&text)
}

/// Where the text between two positions is cut by a word that lies outside of quotes and brackets.
fn parts(bytes: &[u8], begin: usize, end: usize, word: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let (mut position, mut from) = (begin, begin);
    while position < end {
        let after = skip_quoted(bytes, position);
        if after > position {
            position = after;
        } else if matches!(bytes[position], b'(' | b'[') {
            match bracketed(bytes, position) {
                Some((close, _)) => position = close + 1,
                None => return Vec::new(),
            }
        } else if bytes[position..end].starts_with(word) {
            found.push((from, position));
            position += word.len();
            from = position;
        } else {
            position += 1;
        }
    }
    found.push((from, end));
    found
}

fn flatten_first(text: &str, word: &str) -> Option<String> {
    let (bytes, word) = (text.as_bytes(), word.as_bytes());
    let mut position = 0;
    while position < bytes.len() {
        let after = skip_quoted(bytes, position);
        if after > position {
            position = after;
            continue;
        }
        if bytes[position] == b'('
            && let Some((close, _)) = bracketed(bytes, position)
        {
            let outer = parts(bytes, position + 1, close, word);
            for (begin, end) in outer.iter().copied().filter(|_| outer.len() > 1) {
                let is_group = end > begin + 1
                    && bytes[begin] == b'('
                    && bracketed(bytes, begin).is_some_and(|(inner, _)| inner + 1 == end);
                if is_group && parts(bytes, begin + 1, end - 1, word).len() > 1 {
                    return Some(format!(
                        "{}{}{}",
                        text.get(..begin)?,
                        text.get(begin + 1..end - 1)?,
                        text.get(end..)?
                    ));
                }
            }
        }
        position += 1;
    }
    None
}

/// Drops the names that a column gets from the type it is cast to.
fn unnamed_casts(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut kept = String::with_capacity(text.len());
    let (mut position, mut from) = (0, 0);
    while position < bytes.len() {
        let after = skip_quoted(bytes, position);
        if after > position {
            position = after;
            continue;
        }
        if !bytes[position..].starts_with(b"::") {
            position += 1;
            continue;
        }
        let begin = position + 2;
        let mut end = begin;
        while end < bytes.len()
            && (bytes[end].is_ascii_lowercase() || matches!(bytes[end], b' ' | b'_' | b'0'..=b'9'))
        {
            end += 1;
        }
        position = end.max(begin);
        let Some(name) = text.get(begin..end).map(str::trim_end) else { continue };
        let Some(rest) = text.get(begin + name.len()..).and_then(|rest| rest.strip_prefix(" AS ")) else {
            continue;
        };
        let alias = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
        let own = match name {
            "integer" => "int4",
            "bigint" => "int8",
            "smallint" => "int2",
            "boolean" => "bool",
            "double precision" => "float8",
            "real" => "float4",
            "timestamp with time zone" => "timestamptz",
            "timestamp without time zone" => "timestamp",
            "character varying" => "varchar",
            "character" => "bpchar",
            other => other,
        };
        if alias == own {
            kept.push_str(text.get(from..begin + name.len()).unwrap_or_default());
            from = begin + name.len() + " AS ".len() + alias.len();
            position = from;
        }
    }
    kept.push_str(text.get(from..).unwrap_or_default());
    kept
}

/// Position after the string or quoted name that begins at `at`; `at` itself where none begins there.
fn skip_quoted(bytes: &[u8], at: usize) -> usize {
    let quote = bytes[at];
    if quote != b'\'' && quote != b'"' {
        return at;
    }
    let escapes = quote == b'\'' && at > 0 && bytes[at - 1] == b'E';
    let mut position = at + 1;
    while position < bytes.len() {
        if escapes && bytes[position] == b'\\' {
            position += 2;
        } else if bytes[position] == quote {
            if bytes.get(position + 1) == Some(&quote) {
                position += 2;
            } else {
                return position + 1;
            }
        } else {
            position += 1;
        }
    }
    bytes.len()
}

/// Position of the bracket that closes the one at `open`, and positions of the commas directly inside.
fn bracketed(bytes: &[u8], open: usize) -> Option<(usize, Vec<usize>)> {
    let mut depth = 0_usize;
    let mut commas = Vec::new();
    let mut position = open;
    while position < bytes.len() {
        let after = skip_quoted(bytes, position);
        if after > position {
            position = after;
            continue;
        }
        match bytes[position] {
            b'(' | b'[' => depth += 1,
            b')' | b']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some((position, commas));
                }
            }
            b',' if depth == 1 => commas.push(position),
            _ => {}
        }
        position += 1;
    }
    None
}

fn rewrite_first(text: &str) -> Option<String> {
    const BEGIN: &[u8] = b"(ARRAY[";
    let bytes = text.as_bytes();
    let mut position = 0;
    while position < bytes.len() {
        let after = skip_quoted(bytes, position);
        if after > position {
            position = after;
            continue;
        }
        if bytes[position..].starts_with(BEGIN)
            && let Some(rewritten) = rewrite_at(text, position)
        {
            return Some(rewritten);
        }
        position += 1;
    }
    None
}

fn rewrite_at(text: &str, at: usize) -> Option<String> {
    let bytes = text.as_bytes();
    let open = at + "(ARRAY".len();
    let (close, commas) = bracketed(bytes, open)?;
    let cast = close + 1;
    if !bytes.get(cast..)?.starts_with(b")::") {
        return None;
    }
    let name = cast + ")::".len();
    let mut end = name;
    // A type's name: words, dots, quoted names, one pair of parentheses for a modifier; it must end with `[]`.
    while end < bytes.len() {
        let after = skip_quoted(bytes, end);
        if after > end {
            end = after;
        } else if bytes[end].is_ascii_alphanumeric()
            || matches!(bytes[end], b'_' | b'.' | b' ')
            || bytes[end] >= 128
        {
            end += 1;
        } else if bytes[end] == b'(' {
            end = bracketed(bytes, end)?.0 + 1;
        } else {
            break;
        }
    }
    if !bytes.get(end..)?.starts_with(b"[]") || bytes.get(end + 2) == Some(&b'[') {
        return None;
    }
    let element = text.get(name..end)?;
    let mut elements = Vec::new();
    let mut begin = open + 1;
    for comma in commas.into_iter().chain([close]) {
        elements.push(format!("({})::{element}", text.get(begin..comma)?.trim()));
        begin = comma + 1;
    }
    Some(format!("{}ARRAY[{}]{}", text.get(..at)?, elements.join(", "), text.get(end + 2..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cast_array_has_the_form_that_it_has_after_one_more_parse() {
        let before =
            "CHECK (((s)::text = ANY ((ARRAY['a'::character varying, 'b,]'::character varying])::text[])))";
        let after = "CHECK (((s)::text = ANY (ARRAY[('a'::character varying)::text, ('b,]'::character varying)::text])))";
        assert_eq!(canonical(before), after);
        assert_eq!(canonical(after), after, "it is a fixed point");
    }

    #[test]
    fn nested_conditions_are_flat_after_one_more_parse() {
        let before = "CHECK (((a = 1) OR (((b >= 1) AND (b <= 5)) AND (a IS NOT NULL))))";
        let after = "CHECK (((a = 1) OR ((b >= 1) AND (b <= 5) AND (a IS NOT NULL))))";
        assert_eq!(canonical(before), after);
        assert_eq!(canonical(after), after, "it is a fixed point");
        let different = "CHECK ((((a = 1) OR (b >= 1)) AND (b <= 5) AND (a IS NOT NULL)))";
        assert_eq!(canonical(different), different, "another meaning stays another text");
        assert_eq!(
            canonical("SELECT 'y'::text AS text, (1)::integer AS one"),
            "SELECT 'y'::text, (1)::integer AS one"
        );
    }

    #[test]
    fn texts_and_other_casts_stay_as_they_are() {
        for same in [
            "'(ARRAY[1])::text[]'::text",
            "(ARRAY[1, 2])[1]",
            "\"(ARRAY[1])::text[]\"",
            "(ARRAY[1",
            "((ARRAY[1, 2]) || 3)",
        ] {
            assert_eq!(canonical(same), same);
        }
        assert_eq!(canonical("(ARRAY[f(1, 2)])::numeric(3,1)[]"), "ARRAY[(f(1, 2))::numeric(3,1)]");
    }
}
