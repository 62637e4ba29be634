//! Where the workspace is, which files it has, and what cargo says about it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, io};

use serde::Deserialize;

/// Why the workspace could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkspaceError {
    /// A program could not be run.
    #[error("run `{program}`")]
    Run {
        /// The program.
        program: String,
        #[source]
        source: io::Error,
    },
    /// A program ran and failed.
    #[error("`{program}` failed: {said}")]
    Failed {
        /// The program.
        program: String,
        /// What it wrote to standard error.
        said: String,
    },
    /// A file could not be read or written.
    #[error("access `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// What cargo printed was not what we know.
    #[error("read the output of `cargo metadata`")]
    Metadata(#[from] serde_json::Error),
}

/// The root of the workspace: the parent of this crate.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Reads a file of the workspace.
pub(crate) fn read(path: &Path) -> Result<String, WorkspaceError> {
    fs::read_to_string(path).map_err(|source| WorkspaceError::File { path: path.to_path_buf(), source })
}

/// Writes a file of the workspace, its directory included.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), WorkspaceError> {
    let fail = |source| WorkspaceError::File { path: path.to_path_buf(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(fail)?;
    }
    fs::write(path, text).map_err(fail)
}

/// One text file of the workspace.
#[derive(Debug, Clone)]
pub(crate) struct SourceFile {
    /// Relative to the root, with forward slashes.
    pub(crate) path: String,
    /// The content; empty for files that are not UTF-8.
    pub(crate) text: String,
    /// Its size.
    pub(crate) size_bytes: usize,
}

#[cfg(test)]
impl SourceFile {
    /// A file for the tests of the rules.
    pub(crate) fn sample(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), size_bytes: text.len() }
    }
}

/// Every file that git knows or would add, in order of path.
pub(crate) fn files(root: &Path) -> Result<Vec<SourceFile>, WorkspaceError> {
    let listed = output(
        Command::new("git")
            .args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root),
    )?;
    let mut files = Vec::new();
    for path in listed.split('\0').filter(|path| !path.is_empty()) {
        match fs::read(root.join(path)) {
            Ok(bytes) => {
                let size_bytes = bytes.len();
                let text = String::from_utf8(bytes).unwrap_or_default();
                files.push(SourceFile { path: path.to_owned(), text, size_bytes });
            }
            // Deleted but not yet committed as deleted.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(WorkspaceError::File { path: root.join(path), source }),
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// What `cargo metadata` says, as far as we ask.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Metadata {
    /// Every package of the dependency graph, ours included.
    pub(crate) packages: Vec<Package>,
    /// Ids of our own packages.
    pub(crate) workspace_members: Vec<String>,
    /// Where builds go.
    #[serde(default)]
    pub(crate) target_directory: PathBuf,
}

/// One package.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Package {
    /// Name as in its manifest.
    pub(crate) name: String,
    /// Version as in its manifest.
    pub(crate) version: String,
    /// Opaque id.
    pub(crate) id: String,
    /// SPDX expression, or the older form with a slash.
    pub(crate) license: Option<String>,
    /// A licence that has no SPDX name.
    pub(crate) license_file: Option<String>,
    /// `None` for a package that is not from a registry.
    pub(crate) source: Option<String>,
    /// As declared, not as resolved.
    pub(crate) dependencies: Vec<Dependency>,
}

/// One declared dependency.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Dependency {
    /// Name of the package.
    pub(crate) name: String,
    /// `None` is a normal dependency; else `dev` or `build`.
    pub(crate) kind: Option<String>,
}

impl Metadata {
    /// Our own packages, in order of name.
    pub(crate) fn members(&self) -> Vec<&Package> {
        let mut members: Vec<&Package> =
            self.packages.iter().filter(|package| self.workspace_members.contains(&package.id)).collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        members
    }

    /// Packages that are not ours, in order of name and version.
    pub(crate) fn third_party(&self) -> Vec<&Package> {
        let mut others: Vec<&Package> =
            self.packages.iter().filter(|package| !self.workspace_members.contains(&package.id)).collect();
        others.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        others
    }
}

/// The commit that is checked out, in its short form; with `-dirty` where a file of it was changed since.
pub(crate) fn head(root: &Path) -> Result<String, WorkspaceError> {
    let mut git = Command::new("git");
    git.args(["-c", "safe.directory=*", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"])
        .current_dir(root);
    Ok(output(&mut git)?.trim().to_owned())
}

/// Asks cargo. The lock file decides the versions and is not changed.
pub(crate) fn metadata(root: &Path) -> Result<Metadata, WorkspaceError> {
    let mut cargo = crate::process::cargo();
    let text = output(
        cargo.args(["metadata", "--format-version=1", "--all-features", "--locked"]).current_dir(root),
    )?;
    Ok(serde_json::from_str(&text)?)
}

fn output(command: &mut Command) -> Result<String, WorkspaceError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| WorkspaceError::Run { program: program.clone(), source })?;
    if done.status.success() {
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    } else {
        Err(WorkspaceError::Failed { program, said: String::from_utf8_lossy(&done.stderr).trim().to_owned() })
    }
}
