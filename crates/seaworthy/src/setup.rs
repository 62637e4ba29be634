//! Finds and reads the configuration and lays the environment and the flags over it.

use std::path::{Path, PathBuf};

use seaworthy_model::config::{self, Diagnostics, Parsed, SourceText};
use seaworthy_model::id::{RepositoryName, ServiceName};
use seaworthy_model::service::{Inventory, RepositorySpec, Service};

use crate::cli::args::Cli;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, printable};
use crate::output::Face;
use crate::state::{State, absolute};

/// Most files that one configuration may include.
const INCLUDES_MAX: usize = 1000;

/// A configuration that was read and found sound.
#[derive(Debug)]
pub(crate) struct Setup {
    /// The root file.
    pub(crate) path: PathBuf,
    /// What it says, with the environment and the flags laid over it.
    pub(crate) parsed: Parsed,
    /// Where we keep what we remember.
    pub(crate) state: State,
}

/// Where a configuration is looked for, in order.
fn candidates() -> Vec<PathBuf> {
    let mut candidates = vec![PathBuf::from("seaworthy.toml")];
    let home = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
    candidates
        .extend(home.filter(|home| home.is_absolute()).map(|home| home.join("seaworthy/seaworthy.toml")));
    candidates.push(PathBuf::from("/etc/seaworthy/seaworthy.toml"));
    candidates
}

/// The root file of the configuration.
pub(crate) fn locate(cli: &Cli) -> Outcome<PathBuf> {
    if let Some(path) = &cli.global.config {
        return absolute(path);
    }
    let candidates = candidates();
    for candidate in &candidates {
        if candidate.is_file() {
            return absolute(candidate);
        }
    }
    let looked: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
    Err(Failure::new(Exit::Usage, format!("there is no configuration: looked for {}", looked.join(", ")))
        .hint("run `seaworthy init` to write one, or name one with --config FILE"))
}

/// The texts of a configuration: the root file and what it includes.
pub(crate) fn texts(root: &Path) -> Outcome<Vec<SourceText>> {
    let mut texts = vec![text(root)?];
    let base = root.parent().unwrap_or(Path::new("/"));
    for pattern in config::includes(&texts[0].text) {
        let mut matched = expand(base, &pattern)?;
        matched.sort();
        for path in matched {
            if texts.len() > INCLUDES_MAX {
                return Err(Failure::new(
                    Exit::Usage,
                    format!("`{}` includes more than {INCLUDES_MAX} files", root.display()),
                ));
            }
            texts.push(text(&path)?);
        }
    }
    Ok(texts)
}

fn text(path: &Path) -> Outcome<SourceText> {
    let content = std::fs::read_to_string(path).map_err(|error| {
        Failure::because(Exit::Usage, format!("read the configuration `{}`", path.display()), &error)
    })?;
    Ok(SourceText::new(path.display().to_string(), content))
}

/// The files that `pattern` names: a path, or a path whose last component holds one or more `*`.
fn expand(base: &Path, pattern: &str) -> Outcome<Vec<PathBuf>> {
    let path = base.join(pattern);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    if !name.contains('*') {
        return Ok(vec![path]);
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    let entries = std::fs::read_dir(directory).map_err(|error| {
        Failure::because(
            Exit::Usage,
            format!("look for `{}` in `{}`", printable(&name), directory.display()),
            &error,
        )
    })?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| {
            Failure::because(Exit::Usage, format!("list `{}`", directory.display()), &error)
        })?;
        if entry.file_name().to_str().is_some_and(|candidate| matches(&name, candidate)) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Whether `candidate` fits a pattern in which `*` stands for any text.
fn matches(pattern: &str, candidate: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = candidate.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

/// Prints diagnostics and turns them into a failure.
pub(crate) fn refused(face: &Face, diagnostics: &Diagnostics) -> Failure {
    let rendered = config::render(diagnostics, face.colour());
    let count = diagnostics.len();
    Failure {
        exit: Exit::Usage,
        chain: vec![format!(
            "the configuration has {count} problem{}\n{rendered}",
            if count == 1 { "" } else { "s" }
        )],
        hint: None,
    }
}

fn flags(cli: &Cli) -> Outcome<Vec<(String, String)>> {
    let mut flags = Vec::new();
    for (key, value) in [("state_dir", &cli.global.state_dir), ("scratch_dir", &cli.global.scratch_dir)] {
        if let Some(path) = value {
            flags.push((key.to_owned(), absolute(path)?.display().to_string()));
        }
    }
    if let Some(colour) = cli.global.color {
        flags.push(("color".to_owned(), colour.word().to_owned()));
    }
    Ok(flags)
}

fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("SEAWORTHY_"))
        .collect()
}

/// Settings without a configuration file, for verbs that can do without one.
pub(crate) fn bare_state(cli: &Cli, face: &Face) -> Outcome<State> {
    let nothing = config::Settings::default();
    let (settings, _, _) = config::overlay(&nothing, &config::Origins::new(), &environment(), &flags(cli)?)
        .map_err(|problems| refused(face, &problems))?;
    State::locate(&settings)
}

/// Reads the configuration, or says everything that is wrong with it.
pub(crate) fn load(cli: &Cli, face: &Face) -> Outcome<Setup> {
    let path = locate(cli)?;
    let texts = texts(&path)?;
    // Before anything is parsed: a flag that cannot be read must not be taken for one that was not given.
    let flags = flags(cli)?;
    let parsed = config::parse(&texts).and_then(|parsed| parsed.overlaid(&environment(), &flags));
    let parsed = parsed.map_err(|problems| refused(face, &problems))?;
    face.heed_colour(parsed.settings.color());
    let state = State::locate(&parsed.settings)?;
    face.step(format!("read the configuration {}", path.display()))?;
    for included in texts.iter().skip(1) {
        face.detail(format!("included {}", included.name))?;
    }
    face.detail(format!(
        "state in {}, scratch restores in {}",
        state.directory.display(),
        state.scratch.display()
    ))?;
    Ok(Setup { path, parsed, state })
}

impl Setup {
    /// What is promised.
    pub(crate) fn inventory(&self) -> &Inventory {
        &self.parsed.inventory
    }

    /// The services that were asked for; all of them when none was named.
    pub(crate) fn services(&self, names: &[String]) -> Outcome<Vec<&Service>> {
        if names.is_empty() {
            if self.inventory().services.is_empty() {
                return Err(Failure::new(Exit::Usage, format!("`{}` names no service", self.path.display()))
                    .hint("add one, or run `seaworthy init`"));
            }
            return Ok(self.inventory().services.iter().collect());
        }
        names.iter().map(|name| self.service(name)).collect()
    }

    /// The service of this name.
    pub(crate) fn service(&self, name: &str) -> Outcome<&Service> {
        let found = ServiceName::new(name).ok().and_then(|name| self.inventory().service(&name));
        found.ok_or_else(|| {
            let known: Vec<&str> =
                self.inventory().services.iter().map(|service| service.name.as_str()).collect();
            Failure::new(Exit::Usage, format!("there is no service `{}`", printable(name)))
                .hint(format!("known: {}", known.join(", ")))
        })
    }

    /// The repositories of a service, in its order, or the one that was asked for.
    pub(crate) fn repositories(
        &self,
        service: &Service,
        only: Option<&str>,
    ) -> Outcome<Vec<&RepositorySpec>> {
        match only {
            Some(name) => {
                let spec = self.repository(name)?;
                if !service.repositories.contains(&spec.name) {
                    return Err(Failure::new(
                        Exit::Usage,
                        format!("service `{}` does not use repository `{name}`", service.name),
                    ));
                }
                Ok(vec![spec])
            }
            None => service.repositories.iter().map(|name| self.repository(name.as_str())).collect(),
        }
    }

    /// The repository of this name.
    pub(crate) fn repository(&self, name: &str) -> Outcome<&RepositorySpec> {
        let found = RepositoryName::new(name).ok().and_then(|name| self.inventory().repositories.get(&name));
        found.ok_or_else(|| {
            let known: Vec<&str> = self.inventory().repositories.keys().map(RepositoryName::as_str).collect();
            Failure::new(Exit::Usage, format!("there is no repository `{}`", printable(name)))
                .hint(format!("known: {}", known.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text_in_a_name() {
        assert!(
            matches("*.toml", "a.toml")
                && matches("*.toml", ".toml")
                && matches("a*b*c", "aXbYc")
                && matches("*", "")
        );
        assert!(!matches("*.toml", "a.toml.bak") && !matches("a*b", "ab.") && !matches("a*a", "a"));
    }
}
