//! The command line: one tree, from which help, completions and man pages are made.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Backups that come with proof.
///
/// Backs up services, restores them in isolation, proves that what came back equals what was backed up, measures RTO and
/// RPO, and signs a receipt for it.
#[derive(Debug, Parser)]
#[command(
    name = "seaworthy",
    version,
    disable_help_subcommand = true,
    propagate_version = true,
    max_term_width = 110
)]
#[command(
    after_help = "First steps: `seaworthy demo`, then `seaworthy init`. Exit codes: `seaworthy help exit-codes`."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb understands.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Configuration file [default: ./seaworthy.toml, then ~/.config/seaworthy/seaworthy.toml, then /etc/seaworthy/seaworthy.toml]
    #[arg(short = 'C', long, global = true, value_name = "FILE", env = "SEAWORTHY_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Directory of the ledger, keys and locks [env: SEAWORTHY_STATE_DIR=] [default: $XDG_STATE_HOME/seaworthy, ~/.local/state/seaworthy; root: /var/lib/seaworthy]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Directory for scratch restores [env: SEAWORTHY_SCRATCH_DIR=] [default: /var/tmp/seaworthy-UID]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) scratch_dir: Option<PathBuf>,
    /// Print JSON for machines on standard output; long verbs print one event a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say only what is wrong
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say what is being done, step by step; twice: with how long each took and how far it is
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// When to colour [env: SEAWORTHY_COLOR=] [default: auto]
    #[arg(long, global = true, value_enum)]
    pub(crate) color: Option<Colour>,
    /// No progress
    #[arg(long, global = true)]
    pub(crate) no_progress: bool,
    /// Print what would be done and stop; nothing is changed anywhere
    #[arg(long, global = true)]
    pub(crate) dry_run: bool,
    /// Ask nothing: take the flags and the defaults
    #[arg(short, long, global = true)]
    pub(crate) yes: bool,
    /// Give up after this long, e.g. `90m`
    #[arg(long, global = true, value_name = "DURATION")]
    pub(crate) timeout: Option<String>,
    /// Answer as of this instant, e.g. `2026-11-21T12:00:00Z`
    #[arg(long, global = true, value_name = "TIME")]
    pub(crate) as_of: Option<String>,
}

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Colour {
    /// The word of the flag.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show the main job on a small estate: back up, restore in isolation, prove, sign; then catch a damaged backup
    Demo(Demo),
    /// Find what can be backed up here and write a commented seaworthy.toml
    Init(Init),
    /// Check, without changing anything, that backups and drills can work here
    Doctor(Doctor),
    /// Check, show or describe the configuration
    Config(Config),
    /// Find known-bad commands and contradictions in runbooks, scripts, crontabs and workflows; runs nothing of them
    Lint(Lint),
    /// Back up services, and replicate what they store into their other repositories
    Backup(Backup),
    /// Copy what one repository has and the others of its services lack
    Replicate(Replicate),
    /// Say which copies other tools have made in a directory, or how the adopted ones are
    Adopt(Adopt),
    /// Show what the retention policies keep, what may go, and why each copy stays; with --apply, mark it, and a day later let it go
    Retain(Retain),
    /// Hold copies, whatever a policy says; list and release holds
    Hold(Hold),
    /// Take out of repositories what no copy needs, after `retain` has let copies go
    Prune(Prune),
    /// Restore a copy into isolation, prove that it is equal, measure RTO and RPO, sign a receipt
    Drill(Box<Drill>),
    /// One line per service: could it be recovered?
    Status(Status),
    /// Restore a copy to a new place
    Restore(Restore),
    /// Keep a PostgreSQL server's log between copies of a source with mode = "continuous", and hand it to a server that recovers
    Wal(Wal),
    /// List recovery points
    Points(Points),
    /// List, show or export receipts
    Receipts(Receipts),
    /// Verify receipts offline: signatures, order, completeness
    Verify(Verify),
    /// Look where all copies are, and say what each single disaster would leave; sealed as evidence. To be run weekly
    Comply(Comply),
    /// Check a repository's structure, or read back every byte; what that shows of known copies is sealed
    Check(Check),
    /// Look at how the object stores of repositories are set up, and what the credential may destroy there
    Posture(Posture),
    /// Show, check, add, rotate or remove the keys of a repository
    Keys(Keys),
    /// Write a recovery kit: one printable page by which stock restic brings a repository back without this program
    Kit(Kit),
    /// Rebuild the catalogue from the ledger, exported receipts and the repositories
    Catalogue(Catalogue),
    /// Print shell completions
    Completions(Completions),
    /// Write man pages
    Man(Man),
    /// Print help, or a topic: exit-codes, findings, levels
    Help(Help),
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Directory to make the estate in [default: a new temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    /// Keep the estate, the repository and the receipts
    #[arg(long)]
    pub(crate) keep: bool,
    /// Leave PostgreSQL out even where it is installed
    #[arg(long)]
    pub(crate) no_postgres: bool,
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Where the first repository is made [default: `repository` in the state directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) repository: Option<PathBuf>,
    /// Password of the repository, by reference [default: a new random one in the state directory]
    #[arg(long, value_name = "REFERENCE")]
    pub(crate) password: Option<String>,
    /// A SQLite database to back up; may be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) sqlite: Vec<PathBuf>,
    /// A directory to back up; may be given several times
    #[arg(long, value_name = "DIR")]
    pub(crate) files: Vec<PathBuf>,
    /// A PostgreSQL database to back up, `[USER@]HOST[:PORT]/DATABASE`, HOST may be a socket directory
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) postgres: Vec<String>,
    /// Look for SQLite databases below this directory; may be given several times
    #[arg(long, value_name = "DIR")]
    pub(crate) look_in: Vec<PathBuf>,
    /// Ask nothing: take the flags and the defaults (as --yes)
    #[arg(long)]
    pub(crate) non_interactive: bool,
    /// Only make the repositories that the configuration names and that are not there yet
    #[arg(long, conflicts_with_all = ["repository", "password", "sqlite", "files", "postgres", "look_in"])]
    pub(crate) missing_repositories: bool,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub(crate) struct Doctor {}

/// Arguments of `config`.
#[derive(Debug, Args)]
pub(crate) struct Config {
    #[command(subcommand)]
    pub(crate) action: ConfigAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigAction {
    /// Check the configuration and report every problem at once
    Check,
    /// Print every value in force
    Show {
        /// Say where each value comes from
        #[arg(long)]
        origin: bool,
    },
    /// Print the JSON schema of the configuration
    Schema,
}

/// Arguments of `lint`.
#[derive(Debug, Args)]
pub(crate) struct Lint {
    /// Files, and directories to look through; only the configuration itself where omitted
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
}

/// Arguments of `backup`.
#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// Services; all of them where omitted
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
    /// Only into this repository; nothing is replicated
    #[arg(long, value_name = "NAME")]
    pub(crate) repository: Option<String>,
    /// Replicate nothing: `seaworthy replicate` does it later
    #[arg(long)]
    pub(crate) no_replicate: bool,
}

/// Arguments of `replicate`.
#[derive(Debug, Args)]
pub(crate) struct Replicate {
    /// Services; all of them where omitted
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
    /// From this repository [default: the service's first]
    #[arg(long, value_name = "NAME")]
    pub(crate) from: Option<String>,
    /// To this repository; may be given several times [default: the service's others]
    #[arg(long, value_name = "NAME")]
    pub(crate) to: Vec<String>,
    /// Of what is sent, the share that is decrypted and hashed again at its new place; all packs' digests are compared anyway
    #[arg(long, value_name = "SHARE", default_value = "1%")]
    pub(crate) read_back: String,
}

/// Arguments of `adopt`.
#[derive(Debug, Args)]
pub(crate) struct Adopt {
    /// Directory of dumps; the adopted sets of the configuration where omitted
    #[arg(value_name = "PATH")]
    pub(crate) path: Option<PathBuf>,
    /// The service that the copies are of
    #[arg(long, value_name = "NAME", requires = "path")]
    pub(crate) service: Option<String>,
    /// Add what was found to the configuration
    #[arg(long, requires = "service")]
    pub(crate) write: bool,
}

/// Arguments of `retain`.
#[derive(Debug, Args)]
pub(crate) struct Retain {
    /// Services; all of them where omitted
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
    /// Only in this repository
    #[arg(long, value_name = "NAME")]
    pub(crate) repository: Option<String>,
    /// Show the copies that are kept too, each with every reason
    #[arg(long)]
    pub(crate) all: bool,
    /// Carry it out: mark what may go, remove what was marked a day ago and may still go, take other marks away
    #[arg(long)]
    pub(crate) apply: bool,
    /// Let more than a fifth go at once: exactly what the plan says whose digest begins so
    #[arg(long, value_name = "DIGEST", requires = "reason", conflicts_with_all = ["apply", "all"])]
    pub(crate) approve: Option<String>,
    /// Why, for the ledger
    #[arg(long, value_name = "TEXT", requires = "approve")]
    pub(crate) reason: Option<String>,
    /// Instead, show a calendar of what would be left after so long, were every copy good, e.g. `3650d`
    #[arg(long, value_name = "DURATION", conflicts_with_all = ["repository", "apply", "approve"])]
    pub(crate) simulate: Option<String>,
}

/// Arguments of `hold`.
#[derive(Debug, Args)]
pub(crate) struct Hold {
    #[command(subcommand)]
    pub(crate) action: HoldAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HoldAction {
    /// Hold every copy of a service, or one recovery point in every repository
    Add {
        /// Service
        #[arg(value_name = "SERVICE")]
        service: String,
        /// Only this recovery point: the first digits of a copy's id
        #[arg(long, value_name = "POINT")]
        point: Option<String>,
        /// Why, for the ledger
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// When it ends by itself, e.g. `2027-01-31T00:00:00Z` [default: when somebody releases it]
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
    },
    /// List what is held
    List,
    /// End a hold
    Release {
        /// Its number, as `hold list` shows it
        #[arg(value_name = "NUMBER")]
        hold: u64,
        /// Why, for the ledger
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

/// Arguments of `prune`.
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Repositories; all of them where omitted
    #[arg(value_name = "REPOSITORY")]
    pub(crate) repositories: Vec<String>,
    /// Share of what stays that may be unneeded before it is written anew
    #[arg(long, value_name = "SHARE", default_value = "5%")]
    pub(crate) max_unused: String,
}

/// How a recovery point is chosen.
#[derive(Debug, Clone, Args)]
pub(crate) struct Choice {
    /// `latest`, `latest-proven`, `random`, `before:TIME`, or the first digits of a copy's id
    #[arg(long, value_name = "POINT", default_value = "latest")]
    pub(crate) point: String,
    /// Window that `random` draws from
    #[arg(long, value_name = "DURATION", default_value = "30d")]
    pub(crate) window: String,
    /// Seed of the draw; a new one where omitted. It goes into the receipt
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// Take the copy from this repository [default: the service's first]
    #[arg(long, value_name = "NAME")]
    pub(crate) from: Option<String>,
}

/// Arguments of `drill`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Drill {
    #[command(subcommand)]
    pub(crate) action: Option<DrillAction>,
    #[command(flatten)]
    pub(crate) run: DrillRun,
}

/// Arguments of `drill [run]`.
#[derive(Debug, Args)]
pub(crate) struct DrillRun {
    /// Services; all of them where omitted
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
    #[command(flatten)]
    pub(crate) choice: Choice,
    /// Only this set of adopted copies; the services' own copies and other sets are left out
    #[arg(long, value_name = "SET", conflicts_with = "prove_the_drill")]
    pub(crate) adopted: Option<String>,
    /// Write reports (`.html`, `.md`, `.json`) of each drill into this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) report: Option<PathBuf>,
    /// Who runs it, for the report
    #[arg(long, value_name = "NAME", env = "SEAWORTHY_EXECUTOR")]
    pub(crate) executor: Option<String>,
    /// Show that the drill can fail: restore COUNT times (10 where omitted), damage each restore in another way, and say what
    /// noticed it, your own checks included
    #[arg(
        long,
        value_name = "COUNT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "10",
        conflicts_with = "report",
        value_parser = clap::value_parser!(u32).range(1..=1000)
    )]
    pub(crate) prove_the_drill: Option<u32>,
    /// Recover to this moment, too, from the copy whose log leads there: a time with its zone, `lsn:POSITION`, `xid:TRANSACTION`,
    /// `name:RESTORE-POINT` or `latest`. Of a source whose copies hold its log
    #[arg(long, value_name = "MOMENT", conflicts_with_all = ["adopted", "prove_the_drill", "independent"])]
    pub(crate) until: Option<String>,
    /// Bring the copy back with stock restic and the password that somebody else holds, out of reach of this program's state, key
    /// and engine: what level A6 asks for. From a repository at another site where there is one, and a directory
    #[arg(long, conflicts_with = "prove_the_drill")]
    pub(crate) independent: bool,
    /// With --independent: that password, by reference [default: the register's; else its holder is asked to type it]
    #[arg(long, value_name = "REFERENCE", requires = "independent")]
    pub(crate) password: Option<String>,
    /// With --independent: the restic to run; searched for where omitted
    #[arg(long, value_name = "PROGRAM", requires = "independent")]
    pub(crate) restic: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DrillAction {
    /// Run drills (the same as `drill` alone)
    Run(Box<DrillRun>),
    /// List drills
    List {
        /// Only of this service
        service: Option<String>,
    },
    /// Show one drill in full
    Show {
        /// Its run id, or the first letters of it
        run: String,
        /// As `terminal`, `markdown`, `html` or `json`
        #[arg(long, value_enum, default_value_t = ReportFormat::Terminal)]
        format: ReportFormat,
    },
}

/// Shapes of a drill report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// For this terminal.
    Terminal,
    /// Markdown "Restore Test" report.
    Markdown,
    /// One self-contained page.
    Html,
    /// The receipt's statement.
    Json,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Services; all of them where omitted
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// Service; where it or `--to` is omitted, a menu asks on a terminal
    #[arg(value_name = "SERVICE")]
    pub(crate) service: Option<String>,
    /// Source of the service, where it has several
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
    #[command(flatten)]
    pub(crate) choice: Choice,
    /// Take the copy from a repository at another site than the live data
    #[arg(long, conflicts_with = "from")]
    pub(crate) offsite: bool,
    /// Every source of the service, or of all services where none is named, each to `SERVICE/SOURCE` below `--to`
    #[arg(long, conflicts_with_all = ["source", "table", "file"])]
    pub(crate) all: bool,
    /// A new or empty directory, or `postgres:DATABASE` for a new database on the source's own server,
    /// or `postgres://[USER@]HOST[:PORT]/DATABASE`
    #[arg(long, value_name = "TARGET")]
    pub(crate) to: Option<String>,
    /// As of this moment rather than a copy's own, of a source whose copies hold its log: a time with its zone
    /// (2026-11-30T12:00:00+01:00), `lsn:POSITION`, `xid:TRANSACTION`, `name:RESTORE-POINT`, `immediate` or `latest`
    #[arg(long, value_name = "MOMENT", conflicts_with_all = ["table", "file"])]
    pub(crate) until: Option<String>,
    /// Make a standby of a PostgreSQL cluster whose copies hold its log: started, it recovers all that is kept and follows on, until it is
    /// promoted; with `--primary`, `--socket` or both
    #[arg(long, conflicts_with_all = ["all", "table", "file", "until"], requires_all = ["service", "to"])]
    pub(crate) standby: bool,
    /// How the standby connects to its primary: `host=… port=… user=…`, without a password
    #[arg(long, value_name = "CONNECTION", requires = "standby")]
    pub(crate) primary: Option<String>,
    /// The standby's replication slot on its primary
    #[arg(long, value_name = "NAME", requires = "primary")]
    pub(crate) slot: Option<String>,
    /// Where `seaworthy wal serve` will answer on the standby's machine: it asks there for what its primary does not have any more
    #[arg(long, value_name = "SOCKET", requires = "standby")]
    pub(crate) socket: Option<PathBuf>,
    /// Take what is the same from this directory instead of fetching it: what is left of a data directory, or of a tree. It is only read,
    /// and every piece of it is hashed
    #[arg(long, value_name = "DIRECTORY", conflicts_with_all = ["all", "table", "file"], requires_all = ["service", "to"])]
    pub(crate) reuse: Option<PathBuf>,
    /// Only this table, `schema.table`; may be given several times
    #[arg(long, value_name = "TABLE")]
    pub(crate) table: Vec<String>,
    /// Only this file or directory of the copy; may be given several times
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Vec<PathBuf>,
}

/// Arguments of `wal`.
#[derive(Debug, Args)]
pub(crate) struct Wal {
    #[command(subcommand)]
    pub(crate) action: WalAction,
}

/// Whose log.
#[derive(Debug, Args)]
pub(crate) struct WalOf {
    /// Service
    #[arg(value_name = "SERVICE")]
    pub(crate) service: String,
    /// Source of the service, where it has several
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
    /// The repository that keeps it [default: the service's first]
    #[arg(long, value_name = "NAME")]
    pub(crate) from: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WalAction {
    /// Receive the log and store it, until stopped; a connection that breaks is made again
    Stream {
        #[command(flatten)]
        of: WalOf,
    },
    /// Keep a file of the log that the server hands over; for archive_command: seaworthy wal push SERVICE %p
    Push {
        #[command(flatten)]
        of: WalOf,
        /// Ask what `seaworthy wal serve` has opened there: no configuration, no key and no state are needed
        #[arg(long, value_name = "SOCKET")]
        socket: Option<PathBuf>,
        /// The file: %p
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Hand a file of the log to a server that recovers; for restore_command: seaworthy wal get SERVICE %f %p
    #[command(
        long_about = "Hand a file of the log to a server that recovers; for restore_command: seaworthy wal get SERVICE %f %p\n\n\
        It ends with 1 only where nothing of the file, and nothing behind it, is kept: PostgreSQL takes that for the end of the log. \
        Whatever else goes wrong ends with 200, which stops the recovery: a hole is never taken for the end."
    )]
    Get {
        #[command(flatten)]
        of: WalOf,
        /// Ask what `seaworthy wal serve` has opened there: no configuration, no key and no state are needed
        #[arg(long, value_name = "SOCKET")]
        socket: Option<PathBuf>,
        /// The file's name: %f
        #[arg(value_name = "NAME")]
        name: String,
        /// Where to put it: %p
        #[arg(value_name = "TO")]
        to: PathBuf,
        /// The copy that is recovered, where the server was put back after it: its log goes on otherwise
        #[arg(long, value_name = "ID")]
        point: Option<String>,
    },
    /// Keep the repository open for `wal push` and `wal get`, until stopped
    #[command(long_about = "Keep the repository open for `wal push` and `wal get`, until stopped\n\n\
        With --socket they ask this process: a file of the log takes a tenth of the time, and the user that PostgreSQL runs as needs \
        neither the configuration nor the key, only permission to write to the socket (its group has it where the umask allows that: 0007). \
        Where nobody answers they fail and do not try themselves: the server asks again.")]
    Serve {
        #[command(flatten)]
        of: WalOf,
        /// Where to listen; its directory must exist
        #[arg(long, value_name = "SOCKET")]
        socket: PathBuf,
    },
    /// Show which moments can be restored, from copies and from what is kept of the log behind them; 4 where it goes on behind a hole
    Status {
        #[command(flatten)]
        of: WalOf,
    },
}

/// Arguments of `points`.
#[derive(Debug, Args)]
pub(crate) struct Points {
    /// Services; all of them where omitted
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
}

/// Arguments of `receipts`.
#[derive(Debug, Args)]
pub(crate) struct Receipts {
    #[command(subcommand)]
    pub(crate) action: Option<ReceiptsAction>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReceiptsAction {
    /// List receipts, newest last
    List,
    /// Show a receipt by its sequence number or digest
    Show {
        /// Sequence number, or the first digits of the digest
        receipt: String,
    },
    /// Write the whole ledger, one envelope a line, and the public key beside it
    Export {
        /// File to write; its directory must exist
        file: PathBuf,
    },
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// A receipt, or an exported ledger; the ledger of the state directory where omitted
    pub(crate) file: Option<PathBuf>,
    /// Public key (PEM); beside the file, or in the state directory, where omitted
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Digest that the newest receipt must have, so that a cut tail is seen
    #[arg(long, value_name = "DIGEST")]
    pub(crate) head: Option<String>,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Repositories; all of them where omitted
    #[arg(value_name = "REPOSITORY")]
    pub(crate) repositories: Vec<String>,
    /// Read back and authenticate every byte
    #[arg(long)]
    pub(crate) read_data: bool,
    /// Read back a random share, e.g. `10%`
    #[arg(long, value_name = "SHARE", conflicts_with = "read_data")]
    pub(crate) read_data_share: Option<String>,
    /// Take no lock, e.g. on read-only media
    #[arg(long)]
    pub(crate) no_lock: bool,
}

/// Arguments of `comply`.
#[derive(Debug, Args)]
pub(crate) struct Comply {
    /// Services; all of them where omitted
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
    /// Write the report for the auditor (`.html`, `.md`, `.json`) into this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) report: Option<PathBuf>,
    /// How long each repository may take to answer and be read from; they are looked at side by side
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    pub(crate) within: String,
}

/// Arguments of `posture`.
#[derive(Debug, Args)]
pub(crate) struct Posture {
    /// Repositories in an object store; all of them where omitted
    #[arg(value_name = "REPOSITORY")]
    pub(crate) repositories: Vec<String>,
    /// Also write a small object beside the repository, and try to replace and to delete it: may the credential destroy copies?
    #[arg(long)]
    pub(crate) probe_writer: bool,
}

/// Arguments of `keys`.
#[derive(Debug, Args)]
pub(crate) struct Keys {
    #[command(flatten)]
    pub(crate) of: Whose,
    #[command(subcommand)]
    pub(crate) action: KeysAction,
}

/// The repository whose keys are meant.
#[derive(Debug, Args)]
pub(crate) struct Whose {
    /// Repository [default: the only one; `list`: all of them; `check`: the one whose register has NAME]
    #[arg(long, value_name = "NAME")]
    pub(crate) repository: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysAction {
    /// Show the register of keys beside the keys that are there, and what is wrong with either
    List {
        #[command(flatten)]
        of: Whose,
    },
    /// Add a key
    Add {
        /// Password of the new key, by reference
        #[arg(long, value_name = "REFERENCE")]
        password: String,
        /// Its name in the register
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        #[command(flatten)]
        of: Whose,
    },
    /// Give this program's key another password: add the new key, show that it works, then remove the old one once the
    /// configuration names the new password. No data are rewritten; run it again after each step that it asks for
    Rotate {
        /// The new password, by reference
        #[arg(long, value_name = "REFERENCE")]
        password: String,
        /// Remove the old key at once, although the configuration still names its password: nothing runs here until it names
        /// the new one
        #[arg(long)]
        now: bool,
        #[command(flatten)]
        of: Whose,
    },
    /// Have the holder of a key show that it opens the repository, and seal that in the ledger
    Check {
        /// Its name in the register
        name: String,
        /// Its password, by reference [default: the register's `password`; else it is asked for]
        #[arg(long, value_name = "REFERENCE")]
        password: Option<String>,
        #[command(flatten)]
        of: Whose,
    },
    /// Remove a key; never the last one, nor the one in use
    Remove {
        /// Its id, or the first digits of it
        id: String,
        #[command(flatten)]
        of: Whose,
    },
}

/// Arguments of `kit`.
#[derive(Debug, Args)]
pub(crate) struct Kit {
    /// Repository [default: the only one]
    #[arg(long, value_name = "NAME")]
    pub(crate) repository: Option<String>,
    /// File to write: `.html`, `.md` or `.txt`. Never overwritten, and readable by you alone
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Print a password into it, by reference; one that opens the repository, best the one in escrow. Without it there is a
    /// line to write it on by hand
    #[arg(long, value_name = "REFERENCE")]
    pub(crate) with_password: Option<String>,
    /// The restic whose version and digest are printed; searched for where omitted
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) restic: Option<PathBuf>,
}

/// Arguments of `catalogue`.
#[derive(Debug, Args)]
pub(crate) struct Catalogue {
    #[command(subcommand)]
    pub(crate) action: CatalogueAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CatalogueAction {
    /// Recreate the catalogue: from the ledger, from exported receipts where they are given, and from the repositories,
    /// whose copies become recovery points where no receipt knows them and are marked gone where they are no longer there
    Rebuild {
        /// An exported ledger, taken over first
        #[arg(long, value_name = "FILE")]
        receipts: Option<PathBuf>,
        /// Believe what this key (public, PEM) has signed in copies; may be given several times [default: the state
        /// directory's own, and those that the ledger introduces]
        #[arg(long, value_name = "FILE", conflicts_with = "ledger_only")]
        key: Vec<PathBuf>,
        /// Leave the repositories alone; needs no configuration
        #[arg(long)]
        ledger_only: bool,
    },
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Shell
    pub(crate) shell: clap_complete::Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Directory to write pages into; the main page to standard output where omitted
    pub(crate) directory: Option<PathBuf>,
}

/// Arguments of `help`.
#[derive(Debug, Args)]
pub(crate) struct Help {
    /// A verb, or `exit-codes`, `findings`, `levels`
    pub(crate) topic: Vec<String>,
}
