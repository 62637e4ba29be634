//! The few settings of the program itself, and the one rule of precedence: flag, environment, file, default.

use super::diagnostic::{Diagnostics, Draft, Place, Sink, SourceText, quoted};
use super::nearest::nearest;
use super::shape::{FileTable, built_in};
use super::{Origin, Origins};

/// Settings of the program itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// Directory of the catalogue, the ledger and the key; `None` means the user's own state directory.
    pub state_dir: Option<String>,
    /// Directory for scratch restores; `None` means below the state directory.
    pub scratch_dir: Option<String>,
    /// `auto`, `always` or `never`.
    pub color: Option<String>,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub log: Option<String>,
}

impl Settings {
    /// The colour setting; `auto` where nothing was said.
    #[must_use]
    pub fn color(&self) -> &str {
        self.color.as_deref().unwrap_or(built_in::COLOR)
    }

    /// The log level; `info` where nothing was said.
    #[must_use]
    pub fn log(&self) -> &str {
        self.log.as_deref().unwrap_or(built_in::LOG)
    }

    fn slot(&mut self, key: &str) -> Option<&mut Option<String>> {
        match key {
            "state_dir" => Some(&mut self.state_dir),
            "scratch_dir" => Some(&mut self.scratch_dir),
            "color" => Some(&mut self.color),
            "log" => Some(&mut self.log),
            _ => None,
        }
    }

    /// The value of a setting by its key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        match key {
            "state_dir" => self.state_dir.as_deref(),
            "scratch_dir" => self.scratch_dir.as_deref(),
            "color" => Some(self.color()),
            "log" => Some(self.log()),
            _ => None,
        }
    }
}

/// One setting: its key in the file, from which the names of its variable and its flag follow.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) key: &'static str,
    accepts: Accepts,
}

#[derive(Debug, Clone, Copy)]
enum Accepts {
    Path,
    OneOf(&'static [&'static str]),
}

impl Setting {
    pub(super) fn env(&self) -> String {
        format!("SEAWORTHY_{}", self.key.to_uppercase())
    }

    pub(super) fn flag(&self) -> String {
        self.key.replace('_', "-")
    }
}

pub(super) const SETTINGS: &[Setting] = &[
    Setting { key: "state_dir", accepts: Accepts::Path },
    Setting { key: "scratch_dir", accepts: Accepts::Path },
    Setting { key: "color", accepts: Accepts::OneOf(&["auto", "always", "never"]) },
    Setting { key: "log", accepts: Accepts::OneOf(&["error", "warn", "info", "debug", "trace"]) },
];

/// The first that was given, and whose it was: flag before environment before file; `None` means the default.
fn prefer<T>(flag: Option<T>, env: Option<T>, file: Option<T>) -> Option<T> {
    flag.or(env).or(file)
}

/// What the settings are, given the environment and the flags, and where each value comes from.
///
/// `env` may be the whole environment; only names that begin with `SEAWORTHY_` are looked at. `flags` are keys of settings
/// (`state_dir`) with their values. A value that is wrong is refused even where a stronger one overrides it. An empty
/// variable counts as not set.
pub fn overlay(
    file: &Settings,
    file_origins: &Origins,
    env: &[(String, String)],
    flags: &[(String, String)],
) -> Result<(Settings, Origins, Diagnostics), Diagnostics> {
    let mut sink = Sink::new(&[]);
    let mut settings = Settings::default();
    let mut origins = Origins::new();
    let ours: Vec<&(String, String)> =
        env.iter().filter(|(name, value)| name.starts_with("SEAWORTHY_") && !value.is_empty()).collect();
    for setting in SETTINGS {
        let variable = setting.env();
        let from_env = ours.iter().find(|(name, _)| *name == variable).map(|(name, value)| {
            check(setting, name, value, &mut sink);
            (value.clone(), Origin::Env { name: name.clone() })
        });
        let from_flag = flags.iter().rev().find(|(key, _)| key == setting.key).map(|(_, value)| {
            let name = format!("--{}", setting.flag());
            check(setting, &name, value, &mut sink);
            (value.clone(), Origin::Flag { name })
        });
        let from_file = file_origins
            .get(setting.key)
            .filter(|origin| **origin != Origin::Default)
            .and_then(|origin| Some((file.get(setting.key)?.to_owned(), origin.clone())));
        let (value, origin) = match prefer(from_flag, from_env, from_file) {
            Some((value, origin)) => (Some(value), origin),
            None => (None, Origin::Default),
        };
        if let Some(slot) = settings.slot(setting.key) {
            *slot = value;
        }
        origins.insert(setting.key.to_owned(), origin);
    }
    let names: Vec<String> = SETTINGS.iter().map(Setting::env).collect();
    for (name, _) in ours {
        let near = nearest(name, names.iter().map(String::as_str)).filter(|near| is_slip(name, near));
        if let Some(near) = near {
            let text = sink.add_text(SourceText::new("environment", name.clone()));
            Draft::warning(
                Place { text, span: 0..name.len() },
                format!("the variable {} is not read", quoted(name)),
            )
            .hint(format!("did you mean {near}?"))
            .report(&mut sink);
        }
    }
    let diagnostics = sink.finish();
    if diagnostics.has_errors() { Err(diagnostics) } else { Ok((settings, origins, diagnostics)) }
}

/// A name that is meant for something else (a secret's variable, say) may begin with our prefix; only slips are spoken of.
fn is_slip(name: &str, near: &str) -> bool {
    name != near && name.len().abs_diff(near.len()) <= 2 && {
        let tail = |text: &str| text.trim_start_matches("SEAWORTHY_").to_owned();
        nearest(&tail(name), [tail(near).as_str()]).is_some()
    }
}

fn check(setting: &Setting, name: &str, value: &str, sink: &mut Sink) {
    let message = match setting.accepts {
        Accepts::OneOf(choices) if choices.contains(&value) => return,
        Accepts::OneOf(choices) => (
            format!("{} is no value of {name}", quoted(value)),
            format!("write one of {}", choices.join(", ")),
        ),
        // A relative path on the command line is relative to where the user stands; the binary makes it absolute.
        Accepts::Path
            if value.starts_with('/')
                && !value.contains('\0')
                && !value.split('/').any(|part| part == "..") =>
        {
            return;
        }
        Accepts::Path => (
            format!("{name} is not an absolute path without `..`: {}", quoted(value)),
            "write the absolute path".to_owned(),
        ),
    };
    let origin = if name.starts_with("--") { "command line" } else { "environment" };
    let text = format!("{name}={value}");
    let start = name.len() + 1;
    let end = text.len();
    let text = sink.add_text(SourceText::new(origin, text));
    Draft::error(Place { text, span: start..end }, message.0).hint(message.1).report(sink);
}

/// The settings of the root file.
pub(super) fn from_file(table: &FileTable, sink: &mut Sink, origins: &mut Origins) -> Settings {
    let values = [
        ("state_dir", table.state_dir.as_ref().map(|at| (at.value.0.clone(), at.span.clone()))),
        ("scratch_dir", table.scratch_dir.as_ref().map(|at| (at.value.0.clone(), at.span.clone()))),
        ("color", table.color.as_ref().map(|at| (at.value.clone(), at.span.clone()))),
        ("log", table.log.as_ref().map(|at| (at.value.clone(), at.span.clone()))),
    ];
    let mut settings = Settings::default();
    for (key, value) in values {
        let Some((value, span)) = value else {
            origins.insert(key.to_owned(), Origin::Default);
            continue;
        };
        let place = Place { text: 0, span };
        let origin = Origin::File { file: sink.name(0).to_owned(), line: sink.line(&place) };
        origins.insert(key.to_owned(), origin);
        if let Some(slot) = settings.slot(key) {
            *slot = Some(value);
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn file() -> (Settings, Origins) {
        let settings = Settings { log: Some("warn".to_owned()), ..Settings::default() };
        let origin = Origin::File { file: "seaworthy.toml".to_owned(), line: 3 };
        (settings, Origins::from([("log".to_owned(), origin)]))
    }

    fn log(env: &[(&str, &str)], flags: &[(&str, &str)]) -> (String, Origin) {
        let (settings, origins) = file();
        let (settings, origins, _) = overlay(&settings, &origins, &pairs(env), &pairs(flags)).unwrap();
        (settings.log().to_owned(), origins["log"].clone())
    }

    #[test]
    fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
        let env = [("SEAWORTHY_LOG", "debug")];
        assert_eq!(
            log(&env, &[("log", "trace")]),
            ("trace".to_owned(), Origin::Flag { name: "--log".to_owned() })
        );
        assert_eq!(log(&env, &[]), ("debug".to_owned(), Origin::Env { name: "SEAWORTHY_LOG".to_owned() }));
        assert_eq!(log(&[], &[]).0, "warn");
        let (settings, origins, _) = overlay(&Settings::default(), &Origins::new(), &[], &[]).unwrap();
        assert_eq!((settings.log(), &origins["log"]), ("info", &Origin::Default));
        assert_eq!(log(&[("SEAWORTHY_LOG", "")], &[]).0, "warn", "an empty variable is not set");
    }

    #[test]
    fn a_wrong_value_is_refused_even_where_it_is_overridden() {
        let (settings, origins) = file();
        let env = pairs(&[("SEAWORTHY_LOG", "loud"), ("SEAWORTHY_STATE_DIR", "state")]);
        let refused = overlay(&settings, &origins, &env, &pairs(&[("log", "info")])).unwrap_err().to_string();
        expect_test::expect![[r#"
            error: SEAWORTHY_STATE_DIR is not an absolute path without `..`: `state`
             --> environment:1:21
              |
            1 | SEAWORTHY_STATE_DIR=state
              |                     ^^^^^
              hint: write the absolute path

            error: `loud` is no value of SEAWORTHY_LOG
             --> environment:1:15
              |
            1 | SEAWORTHY_LOG=loud
              |               ^^^^
              hint: write one of error, warn, info, debug, trace

            2 errors
        "#]]
        .assert_eq(&refused);
    }

    #[test]
    fn a_slip_in_a_variable_is_spoken_of_and_a_secret_of_ours_is_not() {
        let env = pairs(&[("SEAWORTHY_STAET_DIR", "/x"), ("SEAWORTHY_REPO_PASSWORD", "hunter2")]);
        let (_, _, warnings) = overlay(&Settings::default(), &Origins::new(), &env, &[]).unwrap();
        assert_eq!(warnings.len(), 1);
        assert!(warnings.to_string().contains("did you mean SEAWORTHY_STATE_DIR?"));
        assert!(!warnings.to_string().contains("hunter2"));
    }
}
