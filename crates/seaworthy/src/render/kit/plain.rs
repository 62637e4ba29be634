//! A kit as plain text and as Markdown.

use super::{Block, Kit, blocks};
use crate::failure::printable;

/// Width of the text: fits a page and a telephone held sideways.
const WIDTH: usize = 96;

/// The kit as plain text.
pub(crate) fn text(kit: &Kit) -> String {
    let mut out = String::new();
    let mut line = |words: &str| {
        out.push_str(words.trim_end());
        out.push('\n');
    };
    for block in blocks(kit) {
        match block {
            Block::Heading(level, words) => {
                let words = printable(&words);
                line("");
                line(&words);
                let mark = match level {
                    1 => "=",
                    2 => "-",
                    _ => "",
                };
                line(&mark.repeat(words.chars().count()));
            }
            Block::Text(words) => {
                wrapped(&printable(&words), WIDTH).iter().for_each(|words| line(words));
                line("");
            }
            Block::Warning(words) => {
                let bar = "*".repeat(WIDTH);
                line(&bar);
                wrapped(&printable(&words), WIDTH - 4).iter().for_each(|words| line(&format!("* {words}")));
                line(&bar);
                line("");
            }
            Block::Facts(facts) => {
                let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
                for (name, value) in facts {
                    line(&format!("  {:<width$}  {}", printable(&name), printable(&value)));
                }
                line("");
            }
            Block::Commands(commands) => {
                commands.iter().for_each(|command| line(&format!("    {}", printable(command))));
                line("");
            }
            Block::Code(name, value) => {
                line(&format!("  {}:", printable(&name)));
                line(&format!("    {}", printable(&value)));
                line("");
            }
            Block::Blank(name) => {
                line("");
                line(&format!("  {}: {}", printable(&name), "_".repeat(48)));
                line("");
            }
        }
    }
    out.trim_start().to_owned()
}

/// The kit as Markdown.
pub(crate) fn markdown(kit: &Kit) -> String {
    let mut out = String::new();
    let escaped = |words: &str| printable(words).replace('|', "\\|").replace('<', "&lt;").replace('`', "\\`");
    for block in blocks(kit) {
        let words = match block {
            Block::Heading(level, words) => {
                format!("{} {}\n", "#".repeat(usize::from(level)), escaped(&words))
            }
            Block::Text(words) => format!("{}\n", escaped(&words)),
            Block::Warning(words) => format!("> **{}**\n", escaped(&words)),
            Block::Facts(facts) => {
                let rows: String = facts
                    .iter()
                    .map(|(name, value)| format!("| {} | {} |\n", escaped(name), escaped(value)))
                    .collect();
                format!("| | |\n|---|---|\n{rows}")
            }
            Block::Commands(commands) => {
                let lines: String =
                    commands.iter().map(|command| format!("    {}\n", printable(command))).collect();
                format!("{}\n", lines.trim_end())
            }
            Block::Code(name, value) => format!("{}:\n\n    {}\n", escaped(&name), printable(&value)),
            Block::Blank(name) => format!("{}: {}\n", escaped(&name), "\\_".repeat(40)),
        };
        out.push_str(&words);
        out.push('\n');
    }
    format!("{}\n", out.trim_end())
}

/// Lines of at most `width` characters, broken between words; a longer word stands alone.
fn wrapped(words: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words.split_whitespace() {
        let is_full = lines
            .last()
            .is_some_and(|line| !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width);
        if is_full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_is_lost_where_lines_are_broken() {
        let words = "one two three-and-a-half four";
        assert_eq!(wrapped(words, 9), ["one two", "three-and-a-half", "four"]);
        assert_eq!(wrapped(words, 90).join(" "), words);
    }
}
