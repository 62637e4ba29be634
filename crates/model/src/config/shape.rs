//! The tables of `seaworthy.toml`, one struct each. Their doc comments are the reference and the editor's schema.
//!
//! Every key is optional here: which ones must be given, and what they mean together, is decided by [`super::meaning`],
//! so that everything wrong can be said at once. Nothing here is trusted before that.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

/// The values that stand where nothing is written. The reference prints these very constants.
pub(super) mod built_in {
    pub(in crate::config) const VERSION: u32 = 1;
    pub(in crate::config) const TIER: &str = "standard";
    /// Name, RPO, RTO.
    pub(in crate::config) const TIERS: &[(&str, &str, &str)] =
        &[("critical", "1h", "1h"), ("standard", "24h", "4h"), ("low", "72h", "24h")];
    pub(in crate::config) const SITE: &str = "local";
    /// A month and four days: one proof a month is the least that ISO 27001 A.8.13 is read to ask for.
    pub(in crate::config) const PROOF_VALID: &str = "35d";
    pub(in crate::config) const RANDOM_WITHIN: &str = "30d";
    pub(in crate::config) const DEADLINE_PERCENT: u32 = 300;
    pub(in crate::config) const DEADLINE: &str = "4h";
    /// Where neither a schedule nor an RPO says how fresh a copy should be.
    pub(in crate::config) const STALE_AFTER: &str = "7d";
    pub(in crate::config) const PG_HOST: &str = "/var/run/postgresql";
    pub(in crate::config) const PG_PORT: u16 = 5432;
    pub(in crate::config) const PG_USER: &str = "seaworthy";
    pub(in crate::config) const LOCK_TIMEOUT: &str = "30s";
    pub(in crate::config) const BASE_EVERY: &str = "1d";
    pub(in crate::config) const BUSY_TIMEOUT: &str = "30s";
    pub(in crate::config) const STORE_TIMEOUT: &str = "60s";
    pub(in crate::config) const CHECK_TIMEOUT: &str = "60s";
    pub(in crate::config) const HTTP_STATUS: u16 = 200;
    /// Half a year: longer than a holder stays reachable without anybody noticing is too long, and a check needs a person.
    pub(in crate::config) const KEY_CHECK_EVERY: &str = "180d";
    pub(in crate::config) const COPIES: u32 = 3;
    pub(in crate::config) const MEDIA: u32 = 2;
    pub(in crate::config) const OFFSITE: u32 = 1;
    pub(in crate::config) const OTHER_ACCOUNT: u32 = 1;
    /// A week and a day: `comply` runs once a week.
    pub(in crate::config) const EVIDENCE_AGE: &str = "8d";
    pub(in crate::config) const COLOR: &str = "auto";
    pub(in crate::config) const LOG: &str = "info";
}

/// A value and the bytes that it was written with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<T>::deserialize(deserializer)?;
        let span = spanned.span();
        Ok(Self { value: spanned.into_inner(), span })
    }
}

impl<T: PartialEq + Eq> PartialOrd for At<T>
where
    T: Ord,
{
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Ord> Ord for At<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // By place, so that maps keep the order of the file.
        self.span.start.cmp(&other.span.start).then_with(|| self.value.cmp(&other.value))
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident, $kind:literal, $example:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
        #[serde(transparent)]
        pub(super) struct $name(pub(super) String);

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "x-kind": $kind, "examples": [$example] })
            }
        }
    )*};
}

texts! {
    /// A count of seconds with units.
    DurationText, "duration", "24h";
    /// A duration, or `not-applicable`.
    ObjectiveText, "objective", "24h";
    /// An absolute path.
    PathText, "path", "/var/lib/app";
    /// A reference to a secret.
    SecretText, "secret", "file:/etc/seaworthy/password";
    /// A lower-case name.
    NameText, "name", "orders-db";
}

type Text = Option<At<String>>;
type Flag = Option<At<bool>>;
type List<T> = Option<At<Vec<At<T>>>>;

/// Everything that `seaworthy.toml` may say.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FileTable {
    /// Version of this format.
    #[schemars(extend("default" = built_in::VERSION))]
    pub(super) version: Option<At<u32>>,
    /// Further files, as paths or patterns (`conf.d/*.toml`) relative to the file that says so. Included files hold tiers,
    /// repositories and services; they include nothing themselves.
    pub(super) include: List<String>,
    /// Directory of the catalogue, the ledger and the signing key. The user's own state directory where omitted.
    pub(super) state_dir: Option<At<PathText>>,
    /// Directory for scratch restores; needs room for the largest one. Below `state_dir` where omitted.
    pub(super) scratch_dir: Option<At<PathText>>,
    /// When to use colours.
    #[schemars(extend("default" = built_in::COLOR, "enum" = ["auto", "always", "never"]))]
    pub(super) color: Text,
    /// How much is logged.
    #[schemars(extend("default" = built_in::LOG, "enum" = ["error", "warn", "info", "debug", "trace"]))]
    pub(super) log: Text,
    /// What services take where they say nothing themselves.
    pub(super) defaults: Option<At<DefaultsTable>>,
    /// Named classes of objectives. `critical`, `standard` and `low` exist; a table of that name changes them, any other name
    /// adds one.
    #[serde(default)]
    pub(super) tiers: BTreeMap<At<String>, At<TierTable>>,
    /// Where copies live.
    #[serde(default)]
    pub(super) repositories: BTreeMap<At<String>, At<RepositoryTable>>,
    /// What the business would miss.
    #[serde(default)]
    pub(super) services: BTreeMap<At<String>, At<ServiceTable>>,
}

/// What services take where they say nothing themselves.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DefaultsTable {
    /// Who is asked.
    pub(super) owner: Text,
    /// Name of a tier.
    #[schemars(extend("default" = built_in::TIER))]
    pub(super) tier: Option<At<NameText>>,
    /// Repositories that receive the copies; the first is the primary.
    pub(super) repositories: List<NameText>,
    /// When services are captured.
    pub(super) schedule: Option<At<ScheduleTable>>,
    /// What is kept.
    pub(super) retention: Option<At<RetentionTable>>,
    /// Age at which the newest copy counts as stale.
    pub(super) stale_after: Option<At<DurationText>>,
    /// How services are drilled.
    pub(super) drill: Option<At<DrillTable>>,
    /// Where the live data is.
    pub(super) production: Option<At<ProductionTable>>,
    /// What is asked of the copies: how many, and how far apart.
    pub(super) policy: Option<At<PolicyTable>>,
}

/// A named class of objectives. A built-in tier keeps what is not said here; a tier of your own needs both.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TierTable {
    /// Recovery point objective: the largest tolerated loss, or `not-applicable`.
    pub(super) rpo: Option<At<ObjectiveText>>,
    /// Recovery time objective: the longest tolerated outage, or `not-applicable`.
    pub(super) rto: Option<At<ObjectiveText>>,
}

/// Where copies live.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RepositoryTable {
    /// An absolute path, or the URL of an object store (`s3://bucket/prefix`, `gs://…`, `az://…`). Never with credentials in it.
    #[schemars(required)]
    pub(super) location: Option<At<String>>,
    /// Where the password is to be had: `file:/path`, `env:NAME`, `cmd:program arg`, `systemd:name`, `vault:path#field`.
    #[schemars(required)]
    pub(super) password: Option<At<SecretText>>,
    /// What it is made of. `disk` for a path, `object-store` for a URL, where omitted.
    #[schemars(extend("enum" = ["disk", "object-store", "tape", "nas"]))]
    pub(super) medium: Text,
    /// The place that one disaster can reach at once, in your own words. For a path `local`, for a URL its region, where omitted.
    pub(super) site: Text,
    /// The provider's region.
    pub(super) region: Text,
    /// The account whose loss loses this copy.
    pub(super) account: Text,
    /// What is kept here, in place of what services say; those that keep everything `forever` do so here too. What services say
    /// where omitted.
    pub(super) retention: Option<At<RetentionTable>>,
    /// An object store: URL of the service where it is not the provider's own, e.g. `https://de-fra1.upcloudobjects.com`. `http://` for this machine only.
    pub(super) endpoint: Text,
    /// S3: whether the bucket stands in the path of a request. True where there is an `endpoint` and false where there is none, where omitted.
    pub(super) path_style: Option<At<bool>>,
    /// An object store: the class that packs are stored in, e.g. `STANDARD_IA`, `NEARLINE`, `Cool`. The bucket's own where omitted. Classes that must be thawed before they are read are refused.
    pub(super) storage_class: Text,
    /// S3: what the service encrypts with, on top of what we do: `AES256`, `aws:kms`, or `aws:kms:` and the id of a key.
    pub(super) server_side_encryption: Text,
    /// Azure: the storage account. `AZURE_STORAGE_ACCOUNT` where omitted.
    pub(super) storage_account: Text,
    /// S3: id of the access key, by reference. Environment, web identity or the machine's own role where omitted.
    pub(super) access_key: Option<At<SecretText>>,
    /// S3: secret of the access key, by reference.
    pub(super) secret_key: Option<At<SecretText>>,
    /// S3: token of a session, by reference.
    pub(super) session_token: Option<At<SecretText>>,
    /// Google: the JSON of a service account's key, by reference. `GOOGLE_APPLICATION_CREDENTIALS` or the machine's own account where omitted.
    pub(super) service_account: Option<At<SecretText>>,
    /// Azure: key of the storage account, by reference. `AZURE_STORAGE_KEY` or the machine's own identity where omitted.
    pub(super) account_key: Option<At<SecretText>>,
    /// Azure: a shared access signature, by reference.
    pub(super) sas_token: Option<At<SecretText>>,
    /// An object store: the longest silence of the service before a request is given up and tried again.
    #[schemars(extend("default" = built_in::STORE_TIMEOUT))]
    pub(super) timeout: Option<At<DurationText>>,
    /// The service of this file that gives the password, e.g. your Vault. If its copies lie in here alone, neither can be brought back.
    pub(super) opened_by: Option<At<NameText>>,
    /// The keys that are meant to open it, by name, and who holds them.
    #[serde(default)]
    pub(super) keys: BTreeMap<At<String>, At<KeyTable>>,
}

/// A key of a repository: what it is for, who holds it, and where. Its password is never written here.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyTable {
    /// `online`: this program uses it. `escrow`: a person or a safe holds it, away from what is backed up. `recovery`: made for drills
    /// and for the day of a disaster, never used by this program's backups.
    #[schemars(required, extend("enum" = ["online", "escrow", "recovery"], "examples" = ["escrow"]))]
    pub(super) custody: Text,
    /// Who holds it: a role rather than a name.
    #[schemars(required, extend("examples" = ["head of finance"]))]
    pub(super) holder: Text,
    /// Where it is, in your own words, e.g. `safe, room 2`. Needed for `escrow` and `recovery`.
    pub(super) place: Text,
    /// Where its password can be read for a check without a person, by reference. The holder types it where omitted.
    pub(super) password: Option<At<SecretText>>,
    /// The first digits of its id in the repository, at least 8: `seaworthy keys list` shows them.
    pub(super) id: Text,
    /// How often its holder has to show that it still opens the repository. Not for `online`, which every run uses.
    #[schemars(extend("default" = built_in::KEY_CHECK_EVERY))]
    pub(super) check_every: Option<At<DurationText>>,
}

/// Something the business would miss.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ServiceTable {
    /// Who is asked when a proof fails. Needed here or in `[defaults]`.
    pub(super) owner: Text,
    /// Name of the tier that gives the objectives.
    #[schemars(extend("default" = built_in::TIER))]
    pub(super) tier: Option<At<NameText>>,
    /// Its own recovery point objective, or `not-applicable`. The tier's where omitted.
    pub(super) rpo: Option<At<ObjectiveText>>,
    /// Its own recovery time objective, or `not-applicable`. The tier's where omitted.
    pub(super) rto: Option<At<ObjectiveText>>,
    /// Why the objectives are what they are. Needed where one is `not-applicable`.
    pub(super) rationale: Text,
    /// Services that must be back before this one.
    pub(super) depends_on: List<NameText>,
    /// Repositories that receive its copies; the first is the primary. Every repository, in the order of the file, where omitted.
    pub(super) repositories: List<NameText>,
    /// When it is captured.
    pub(super) schedule: Option<At<ScheduleTable>>,
    /// What is kept. Nothing expires where omitted.
    pub(super) retention: Option<At<RetentionTable>>,
    /// Age at which its newest copy counts as stale. The schedule's longest pause plus a twelfth where omitted (26h for a daily
    /// schedule), else the RPO plus a twelfth, else `7d`.
    pub(super) stale_after: Option<At<DurationText>>,
    /// How it is drilled.
    pub(super) drill: Option<At<DrillTable>>,
    /// Where its live data is. Key by key, what is omitted is that of `[defaults]`.
    pub(super) production: Option<At<ProductionTable>>,
    /// What is asked of its copies. Key by key, what is omitted is that of `[defaults]`.
    pub(super) policy: Option<At<PolicyTable>>,
    /// Whether it is the single source of truth for its data.
    #[schemars(extend("default" = false))]
    pub(super) ssot: Flag,
    /// What holds its state, by name. A service with RPO `not-applicable` may have none.
    #[serde(default)]
    pub(super) sources: BTreeMap<At<String>, At<SourceTable>>,
    /// Copies that other tools make of it, by name: they are drilled, too.
    #[serde(default)]
    pub(super) adopted: BTreeMap<At<String>, At<super::adopted::AdoptedTable>>,
}

/// When something is due. Both are needed: without a zone a schedule runs at another hour after a move or a change of clocks.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ScheduleTable {
    /// Five fields: minute, hour, day of month, month, day of week. `MON#1`, `L` and `W` are understood.
    #[schemars(required, extend("examples" = ["0 2 * * *"]))]
    pub(super) cron: Text,
    /// IANA name of the time zone, such as `Europe/Amsterdam` or `UTC`.
    #[schemars(required, extend("examples" = ["Europe/Amsterdam"]))]
    pub(super) zone: Text,
}

/// What is kept. A copy stays while any of these keeps it; what none of them keeps expires.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RetentionTable {
    /// Newest copies kept whatever their age.
    pub(super) last: Option<At<u32>>,
    /// Days of which the first good copy is kept.
    pub(super) daily: Option<At<u32>>,
    /// ISO weeks of which the first good copy is kept.
    pub(super) weekly: Option<At<u32>>,
    /// Months of which the first good copy is kept.
    pub(super) monthly: Option<At<u32>>,
    /// Years of which the first good copy is kept.
    pub(super) yearly: Option<At<u32>>,
    /// Everything younger than this is kept.
    pub(super) within: Option<At<DurationText>>,
    /// Nothing expires. Stands alone.
    #[schemars(extend("default" = false))]
    pub(super) forever: Flag,
}

/// How a service is drilled: restored in isolation, compared, measured.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DrillTable {
    /// When drills are due.
    pub(super) schedule: Option<At<ScheduleTable>>,
    /// Age at which a proof no longer counts.
    #[schemars(extend("default" = built_in::PROOF_VALID))]
    pub(super) proof_valid: Option<At<DurationText>>,
    /// Window from which a random point is drawn.
    #[schemars(extend("default" = built_in::RANDOM_WITHIN))]
    pub(super) random_within: Option<At<DurationText>>,
    /// Deadline of a drill as a multiple of the RTO, in percent: 300 is three times. At least 100, so that a miss is measured.
    #[schemars(extend("default" = built_in::DEADLINE_PERCENT))]
    pub(super) deadline_percent: Option<At<u32>>,
    /// Deadline where no RTO applies.
    #[schemars(extend("default" = built_in::DEADLINE))]
    pub(super) deadline: Option<At<DurationText>>,
}

/// Where the live data is, in the same words as those of the repositories. What is not said is unknown, and nothing counts as
/// independent of it.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProductionTable {
    /// The place that one disaster can reach at once, in your own words: a building, a data centre.
    pub(super) site: Text,
    /// The provider's region.
    pub(super) region: Text,
    /// The account whose loss loses the live data: of a cloud, or of who administers the machine.
    pub(super) account: Text,
    /// What it lies on.
    #[schemars(extend("enum" = ["disk", "object-store", "tape", "nas"]))]
    pub(super) medium: Text,
}

/// What is asked of the copies; `seaworthy comply` says whether it is so. 0 asks for nothing.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyTable {
    /// Copies, the live data among them.
    #[schemars(extend("default" = built_in::COPIES))]
    pub(super) copies: Option<At<u32>>,
    /// Kinds of media, that of the live data among them.
    #[schemars(extend("default" = built_in::MEDIA))]
    pub(super) media: Option<At<u32>>,
    /// Copies at another site than the live data.
    #[schemars(extend("default" = built_in::OFFSITE))]
    pub(super) offsite: Option<At<u32>>,
    /// Copies in another account than the live data.
    #[schemars(extend("default" = built_in::OTHER_ACCOUNT))]
    pub(super) other_account: Option<At<u32>>,
    /// Copies in another region than the live data.
    #[schemars(extend("default" = 0))]
    pub(super) other_region: Option<At<u32>>,
    /// Copies that are known to be protected from change and deletion.
    #[schemars(extend("default" = 0))]
    pub(super) immutable: Option<At<u32>>,
    /// Regions that copies may be in, as patterns: `["eu-*", "de-fra1"]`. Nothing is written anywhere else, nor where a repository does
    /// not say its region. Any region where omitted.
    pub(super) regions: List<String>,
    /// How old a look at the copies may be to count.
    #[schemars(extend("default" = built_in::EVIDENCE_AGE))]
    pub(super) evidence_age: Option<At<DurationText>>,
}

/// One source of a service.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(untagged)]
#[expect(clippy::large_enum_variant, reason = "read once per source, and never moved in bulk")]
pub(super) enum SourceTable {
    Postgres(PostgresTable),
    Sqlite(SqliteTable),
    Files(FilesTable),
}

/// A PostgreSQL database, or the cluster that it belongs to.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PostgresTable {
    /// What kind of source this is.
    #[schemars(required, extend("const" = "postgres"))]
    #[expect(dead_code, reason = "part of the schema; the shape check has already chosen by it")]
    pub(super) kind: Text,
    /// Host name, address, or absolute directory of a Unix socket.
    #[schemars(extend("default" = built_in::PG_HOST))]
    pub(super) host: Text,
    /// Port; also the suffix of the socket's name.
    #[schemars(extend("default" = built_in::PG_PORT))]
    pub(super) port: Option<At<u16>>,
    /// Role that reads.
    #[schemars(extend("default" = built_in::PG_USER))]
    pub(super) user: Text,
    /// Name of the database. Never a connection string.
    #[schemars(required)]
    pub(super) database: Text,
    /// `logical`: one database, by `pg_dump`. `physical`: the whole cluster of which it is one, by a base backup; the role then
    /// needs `REPLICATION`, and the database is the one that the checks below are asked of. `continuous`: the same, and in between
    /// only the log that the server has written since the backup before, which a replication slot keeps for us until then: any moment
    /// since the base backup can be restored.
    #[schemars(extend("enum" = ["logical", "physical", "continuous"], "default" = "logical"))]
    pub(super) mode: Text,
    /// With `continuous`: a backup takes a new base backup when the last one is older than this.
    #[schemars(extend("default" = built_in::BASE_EVERY))]
    pub(super) base_every: Option<At<DurationText>>,
    /// Where the password is to be had; none for peer or trust authentication.
    pub(super) password: Option<At<SecretText>>,
    /// `verify-full`: TLS, certificate and host name verified. `local-only`: a Unix socket or loopback, and nothing else. Chosen
    /// from `host` where omitted.
    #[schemars(extend("enum" = ["local-only", "verify-full"]))]
    pub(super) tls: Text,
    /// Schemas left out on purpose; recorded with every copy.
    pub(super) exclude_schemas: List<String>,
    /// Tables left out on purpose, as `schema.table`; recorded with every copy.
    pub(super) exclude_tables: List<String>,
    /// Longest wait for a table lock.
    #[schemars(extend("default" = built_in::LOCK_TIMEOUT))]
    pub(super) lock_timeout: Option<At<DurationText>>,
    /// Directory of the client's binaries. Searched for where omitted.
    pub(super) bin_dir: Option<At<PathText>>,
    /// Whether an empty database is healthy.
    #[schemars(extend("default" = false))]
    pub(super) may_be_empty: Flag,
    /// What is kept of it. What the service says where omitted.
    pub(super) retention: Option<At<RetentionTable>>,
    /// Questions asked of a restore beside those of the witness.
    #[serde(default)]
    pub(super) checks: Vec<At<CheckTable>>,
}

/// A SQLite database file.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SqliteTable {
    /// What kind of source this is.
    #[schemars(required, extend("const" = "sqlite"))]
    #[expect(dead_code, reason = "part of the schema; the shape check has already chosen by it")]
    pub(super) kind: Text,
    /// The database file.
    #[schemars(required)]
    pub(super) path: Option<At<PathText>>,
    /// Longest wait for a busy database.
    #[schemars(extend("default" = built_in::BUSY_TIMEOUT))]
    pub(super) busy_timeout: Option<At<DurationText>>,
    /// Whether a database without rows is healthy.
    #[schemars(extend("default" = false))]
    pub(super) may_be_empty: Flag,
    /// What is kept of it. What the service says where omitted.
    pub(super) retention: Option<At<RetentionTable>>,
    /// Questions asked of a restore beside those of the witness.
    #[serde(default)]
    pub(super) checks: Vec<At<CheckTable>>,
}

/// Trees of files.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FilesTable {
    /// What kind of source this is.
    #[schemars(required, extend("const" = "files"))]
    #[expect(dead_code, reason = "part of the schema; the shape check has already chosen by it")]
    pub(super) kind: Text,
    /// Roots of the trees.
    #[schemars(required)]
    pub(super) paths: List<PathText>,
    /// Patterns left out on purpose, matched against the path below its root (`cache/**`); recorded with every copy.
    pub(super) exclude: List<String>,
    /// Whether to stay on each root's file system.
    #[schemars(extend("default" = false))]
    pub(super) one_file_system: Flag,
    /// Whether an empty tree is healthy.
    #[schemars(extend("default" = false))]
    pub(super) may_be_empty: Flag,
    /// What is kept of it. What the service says where omitted.
    pub(super) retention: Option<At<RetentionTable>>,
    /// Questions asked of a restore beside those of the witness.
    #[serde(default)]
    pub(super) checks: Vec<At<CheckTable>>,
}

/// One question of yours to a restored source.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(untagged)]
pub(super) enum CheckTable {
    Sql(SqlCheckTable),
    MinimumRows(MinimumRowsTable),
    Freshness(FreshnessTable),
    Migration(MigrationTable),
    Command(CommandTable),
    Http(HttpTable),
}

macro_rules! check_tables {
    ($($(#[$doc:meta])* $name:ident = $kind:literal { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            /// What kind of check this is.
            #[schemars(required, extend("const" = $kind))]
    #[expect(dead_code, reason = "part of the schema; the shape check has already chosen by it")]
            pub(super) kind: Text,
            /// Its name; part of the receipt.
            #[schemars(required)]
            pub(super) name: Option<At<NameText>>,
            /// How long it may take before it is inconclusive.
            #[schemars(extend("default" = built_in::CHECK_TIMEOUT))]
            pub(super) timeout: Option<At<DurationText>>,
            $($(#[$field_meta])* pub(super) $field: $type,)*
        }
    )*};
}

check_tables! {
    /// A query that answers one value, run read-only.
    SqlCheckTable = "sql" {
        /// The query.
        #[schemars(required)]
        query: Text,
        /// The expected answer as text; `true` where omitted.
        expect: Text,
        /// Database it runs in; the source's own where omitted. PostgreSQL only.
        database: Text,
    }
    /// A table with at least so many rows.
    MinimumRowsTable = "minimum-rows" {
        /// `schema.table`, or `table`.
        #[schemars(required)]
        table: Text,
        /// Fewest rows that are plausible.
        #[schemars(required)]
        rows: Option<At<u64>>,
    }
    /// The newest value of a time column, measured from the recovery point.
    FreshnessTable = "freshness" {
        /// `schema.table`, or `table`.
        #[schemars(required)]
        table: Text,
        /// A column of a date or time type.
        #[schemars(required)]
        column: Text,
        /// Largest distance between the newest value and the recovery point.
        #[schemars(required)]
        within: Option<At<DurationText>>,
    }
    /// The revision that a schema migration tool has recorded.
    MigrationTable = "migration" {
        /// The tool.
        #[schemars(required, extend("enum" = ["alembic", "sqlx", "flyway", "diesel", "django", "rails"]))]
        tool: Text,
        /// The revision that must be the newest one.
        #[schemars(required)]
        revision: Text,
    }
    /// A program run inside the sandbox, without a shell; exit status 0 passes.
    CommandTable = "command" {
        /// Program and arguments.
        #[schemars(required)]
        argv: List<String>,
    }
    /// A request to a service started inside the sandbox.
    HttpTable = "http" {
        /// Address on the sandbox's own loopback, such as `http://127.0.0.1:8080/health`.
        #[schemars(required)]
        url: Text,
        /// Expected status.
        #[schemars(extend("default" = built_in::HTTP_STATUS))]
        status: Option<At<u16>>,
    }
}
