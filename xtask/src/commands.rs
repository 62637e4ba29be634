//! The reference of the command line, made from the tree of commands that the product itself parses with.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command, CommandFactory as _};

use crate::args::Cli;

const INTRODUCTION: &str = "# Commands

`seaworthy VERB --help` says the same. Flags that every verb understands are listed once, under [every verb](#every-verb).
A setting is taken from the flag, else from the environment, else from the configuration, else from the default.
How a verb ends is listed under [exit codes](exit-codes.md).

";

/// The whole page.
pub(crate) fn page() -> String {
    let mut cli = Cli::command();
    cli.build();
    let mut page = format!("{}{INTRODUCTION}", crate::generate::NOTICE);
    let verbs: Vec<&Command> = visible(&cli).collect();
    push(&mut page, "| verb | what it does |\n|---|---|\n");
    for verb in &verbs {
        push(&mut page, &format!("| [`{0}`](#seaworthy-{0}) | {1} |\n", verb.get_name(), about(verb)));
    }
    push(&mut page, "\n## every verb\n\n");
    table(&mut page, cli.get_arguments().filter(|argument| is_shown(argument)));
    for verb in verbs {
        command(&mut page, verb, &format!("seaworthy {}", verb.get_name()), 2);
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|verb| !verb.is_hide_set())
}

fn command(page: &mut String, command: &Command, path: &str, depth: usize) {
    push(page, &format!("\n{} {path}\n\n{}\n", "#".repeat(depth), sentence(&about(command))));
    let own: Vec<&Arg> =
        command.get_arguments().filter(|argument| is_shown(argument) && !argument.is_global_set()).collect();
    let mut usage = path.to_owned();
    for argument in own.iter().filter(|argument| argument.is_positional()) {
        let name = name(argument);
        let many = if is_repeatable(argument) { "..." } else { "" };
        push(
            &mut usage,
            &if argument.is_required_set() { format!(" <{name}>{many}") } else { format!(" [{name}]{many}") },
        );
    }
    let has_verbs = visible(command).next().is_some();
    if own.iter().any(|argument| !argument.is_positional()) {
        usage.push_str(" [OPTIONS]");
    }
    if has_verbs {
        usage.push_str(if command.is_subcommand_required_set() { " <COMMAND>" } else { " [COMMAND]" });
    }
    push(page, &format!("\n```text\n{usage}\n```\n"));
    if !own.is_empty() {
        page.push('\n');
        table(page, own.into_iter());
    }
    for verb in visible(command) {
        self::command(page, verb, &format!("{path} {}", verb.get_name()), depth + 1);
    }
}

fn is_shown(argument: &Arg) -> bool {
    !argument.is_hide_set() && !["help", "version"].contains(&argument.get_id().as_str())
}

fn is_repeatable(argument: &Arg) -> bool {
    matches!(argument.get_action(), ArgAction::Append | ArgAction::Count)
}

/// A table of arguments: what is written, its default, its variable, what it means.
fn table<'a>(page: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    push(page, "| argument | default | environment | what it means |\n|---|---|---|---|\n");
    for argument in arguments {
        let mut written = String::new();
        if let Some(short) = argument.get_short() {
            push(&mut written, &format!("`-{short}`, "));
        }
        match argument.get_long() {
            Some(long) if takes_value(argument) => {
                push(&mut written, &format!("`--{long} {}`", name(argument)))
            }
            Some(long) => push(&mut written, &format!("`--{long}`")),
            None => push(&mut written, &format!("`{}`", name(argument))),
        }
        let (mut help, mut default, mut variable) = bracketed(&text(argument));
        if takes_value(argument) {
            let values: Vec<String> = argument
                .get_default_values()
                .iter()
                .map(|value| value.to_string_lossy().into_owned())
                .collect();
            if !values.is_empty() {
                default = values.join(", ");
            }
        }
        if let Some(name) = argument.get_env() {
            variable = name.to_string_lossy().into_owned();
        }
        let possible: Vec<String> = argument
            .get_possible_values()
            .iter()
            .filter(|value| !value.is_hide_set() && takes_value(argument))
            .map(|value| format!("`{}`", value.get_name()))
            .collect();
        if !possible.is_empty() {
            push(&mut help, &format!("; one of {}", possible.join(", ")));
        }
        let code = |text: &str| if text.is_empty() { String::new() } else { format!("`{text}`") };
        push(
            page,
            &format!(
                "| {written} | {} | {} | {} |\n",
                // A default in words is no literal.
                if default.contains(' ') { default.clone() } else { code(&default) },
                code(&variable),
                crate::generate::cell(&help)
            ),
        );
    }
}

fn takes_value(argument: &Arg) -> bool {
    argument.get_action().takes_values()
}

fn name(argument: &Arg) -> String {
    argument
        .get_value_names()
        .and_then(|names| names.first().map(ToString::to_string))
        .unwrap_or_else(|| argument.get_id().as_str().to_uppercase())
}

fn about(command: &Command) -> String {
    command.get_about().map(|text| text.to_string().trim_end_matches('.').to_owned()).unwrap_or_default()
}

fn sentence(words: &str) -> String {
    if words.ends_with('?') { words.to_owned() } else { format!("{words}.") }
}

fn text(argument: &Arg) -> String {
    argument.get_help().map(ToString::to_string).unwrap_or_default()
}

/// Help, default and variable where the help itself says the latter two: `Directory [env: X=] [default: /y]`.
fn bracketed(help: &str) -> (String, String, String) {
    let mut left = help.to_owned();
    let mut take = |mark: &str| {
        let Some(start) = left.find(mark) else { return String::new() };
        let Some(length) = left[start..].find(']') else { return String::new() };
        let value = left[start + mark.len()..start + length].trim().trim_end_matches('=').to_owned();
        left.replace_range(start..=start + length, "");
        value
    };
    let variable = take("[env:");
    let default = take("[default:");
    (left.split_whitespace().collect::<Vec<_>>().join(" "), default, variable)
}

fn push(page: &mut String, text: &str) {
    page.write_str(text).expect("a String grows until memory ends");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(command: &Command, found: &mut Vec<String>) {
        found.extend(command.get_arguments().filter_map(|argument| argument.get_long().map(str::to_owned)));
        for verb in command.get_subcommands() {
            flags(verb, found);
        }
    }

    #[test]
    fn every_flag_and_every_verb_is_on_the_page() {
        let page = page();
        let mut found = Vec::new();
        flags(&Cli::command(), &mut found);
        assert!(found.len() > 30, "{found:?}");
        for flag in found {
            assert!(
                page.contains(&format!("`--{flag}`")) || page.contains(&format!("`--{flag} ")),
                "--{flag}"
            );
        }
        for verb in Cli::command().get_subcommands() {
            assert!(page.contains(&format!("## seaworthy {}", verb.get_name())), "{}", verb.get_name());
        }
        assert!(page.contains("`SEAWORTHY_STATE_DIR`") && page.contains("`SEAWORTHY_EXECUTOR`"));
        assert!(page.contains("| `--point POINT` | `latest` |"));
    }

    #[test]
    fn what_the_help_says_in_brackets_has_a_column_of_its_own() {
        let (help, default, variable) = bracketed("Directory for x [env: SEAWORTHY_X=] [default: /var/x]");
        assert_eq!(
            (help.as_str(), default.as_str(), variable.as_str()),
            ("Directory for x", "/var/x", "SEAWORTHY_X")
        );
    }
}
