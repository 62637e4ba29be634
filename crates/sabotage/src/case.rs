//! What is made wrong, what has to be said about it, and what was said.

use std::fmt;

use seaworthy_testkit::estate::Dice;
use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::stage::Stage;

/// What kind of source the estate of a case is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A PostgreSQL database.
    Postgres,
    /// A base backup of a PostgreSQL cluster.
    Cluster,
    /// The log that was received behind a copy of a PostgreSQL cluster.
    Log,
    /// A SQLite database.
    Sqlite,
    /// A tree of files.
    Files,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Postgres, Self::Cluster, Self::Log, Self::Sqlite, Self::Files];

    /// The word for it, which begins the name of its cases.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Cluster => "cluster",
            Self::Log => "log",
            Self::Sqlite => "sqlite",
            Self::Files => "files",
        }
    }

    /// What the section of its figures is called.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL databases",
            Self::Cluster => "PostgreSQL clusters: base backups",
            Self::Log => "PostgreSQL clusters: the log behind a copy",
            Self::Sqlite => "SQLite databases",
            Self::Files => "Trees of files",
        }
    }
}

/// Where a mutation acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// The copy is a sound copy of other content than the witness saw.
    Content,
    /// The bytes of the dump, of the database file or of the tree.
    Dump,
    /// A program that lies.
    Tool,
    /// Objects of the repository.
    Repository,
    /// The witness and the manifest.
    Witness,
    /// Keys and passwords.
    Key,
    /// Receipts and the catalogue.
    Ledger,
    /// What the clock says.
    Clock,
    /// The copy attacks whoever restores it.
    Hostile,
    /// Nothing is wrong.
    Healthy,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Content => "content",
            Self::Dump => "dump",
            Self::Tool => "tool",
            Self::Repository => "repository",
            Self::Witness => "witness",
            Self::Key => "key",
            Self::Ledger => "ledger",
            Self::Clock => "clock",
            Self::Hostile => "hostile",
            Self::Healthy => "healthy",
        })
    }
}

/// One run of the product, after the mutation.
#[derive(Debug, Clone, Default)]
pub struct Step {
    /// Verb and arguments.
    pub arguments: Vec<String>,
    /// Variables beside those of every run.
    pub environment: Vec<(String, String)>,
}

impl Step {
    /// A run of these words.
    #[must_use]
    pub fn of(words: &[&str]) -> Self {
        Self { arguments: words.iter().map(|word| (*word).to_owned()).collect(), environment: Vec::new() }
    }

    /// With a variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }
}

/// What is asked after a mutation: runs in order, until one does not end with success.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The runs.
    pub steps: Vec<Step>,
    /// Whether naive checkers have a copy that they can judge.
    pub has_copy: bool,
}

impl Ask {
    /// The drill of the newest copy.
    #[must_use]
    pub fn drill() -> Self {
        Self::steps(vec![Step::of(&["drill", "it"])])
    }

    /// A backup, then a drill of it.
    #[must_use]
    pub fn backup_and_drill() -> Self {
        Self::steps(vec![Step::of(&["backup", "it"]), Step::of(&["drill", "it"])])
    }

    /// These runs.
    #[must_use]
    pub fn steps(steps: Vec<Step>) -> Self {
        Self { steps, has_copy: true }
    }
}

/// What is done to a stage.
pub type Act = Box<dyn Fn(&Stage, &mut Dice) -> Outcome<Ask> + Send + Sync>;

/// A mutation, or a healthy variation.
pub struct Case {
    /// Its stable name, below the word of its kind.
    pub name: String,
    /// Where it acts.
    pub layer: Layer,
    /// What is made wrong, in words.
    pub what: String,
    /// Codes of which one has to be told; empty for a healthy variation.
    pub expected: Vec<&'static str>,
    /// What is done.
    pub act: Act,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).field("layer", &self.layer).finish_non_exhaustive()
    }
}

impl Case {
    /// A mutation.
    pub fn new(
        name: impl Into<String>,
        layer: Layer,
        what: impl Into<String>,
        expected: &[&'static str],
        act: impl Fn(&Stage, &mut Dice) -> Outcome<Ask> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), layer, what: what.into(), expected: expected.to_vec(), act: Box::new(act) }
    }

    /// A healthy variation.
    pub fn healthy(
        name: impl Into<String>,
        what: impl Into<String>,
        act: impl Fn(&Stage, &mut Dice) -> Outcome<Ask> + Send + Sync + 'static,
    ) -> Self {
        Self::new(name, Layer::Healthy, what, &[], act)
    }

    /// Whether nothing may be told about it.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.layer == Layer::Healthy
    }
}

/// What the product said.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Said {
    /// The verb that ended the trial.
    pub verb: String,
    /// Its exit code; `None` for a signal.
    pub exit: Option<i32>,
    /// `pass`, `fail`, `inconclusive`, `refused` where there was no verdict, `unproven` where a drill ended well without a
    /// proof.
    pub word: String,
    /// Codes that it named, sorted.
    pub codes: Vec<String>,
    /// Milliseconds from the first run to its answer.
    pub took_ms: u64,
    /// The last words, when they were not what was expected.
    pub words: String,
}

/// What a naive checker said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Naive {
    /// All is well.
    Pass,
    /// Something is wrong.
    Alarm,
    /// It has nothing to look at.
    Blank,
}

/// What three checkers said that real organisations rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Naives {
    /// The tools end with success and the list of contents can be read.
    pub exit: Naive,
    /// Every stored object hashes to its name.
    pub checksum: Naive,
    /// After a restore every table holds as many rows (a tree as many files) as the source did.
    pub counts: Naive,
}

/// One trial.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trial {
    /// The kind of source.
    pub kind: Kind,
    /// The case's name.
    pub case: String,
    /// The seed.
    pub seed: u64,
    /// What the product said.
    pub said: Said,
    /// What naive checkers said; only of mutations.
    pub naive: Option<Naives>,
}

impl Trial {
    /// Whether something was told: anything but an exit code that reads as a pass.
    #[must_use]
    pub fn is_detected(&self) -> bool {
        self.said.word != "pass" && self.said.word != "unproven"
    }

    /// Whether everything was said to be well, and every drill was a proof: what a healthy variation asks for.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.said.word == "pass"
    }

    /// Whether the product has answered otherwise than a case asks for.
    #[must_use]
    pub fn is_wrong(&self, case: &Case) -> bool {
        if case.is_healthy() { !self.is_proven() } else { !self.is_detected() }
    }

    /// Whether one of the expected codes was told.
    #[must_use]
    pub fn is_attributed(&self, case: &Case) -> bool {
        case.expected.iter().any(|code| self.said.codes.iter().any(|said| said == code))
    }
}
