//! The commands that the README promises, so that they cannot rot.

/// The arguments of every `cargo ...` line in the README's shell blocks, in order, less `cargo xtask test`, which is
/// what runs them. Comments after `#` are not part of a command.
pub(crate) fn commands(readme: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut is_shell = false;
    for line in readme.lines() {
        if let Some(language) = line.trim().strip_prefix("```") {
            is_shell = !is_shell && language == "sh";
            continue;
        }
        if !is_shell {
            continue;
        }
        let words: Vec<String> =
            line.split('#').next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        if words.first().is_some_and(|word| word == "cargo")
            && words.get(1).is_none_or(|word| word != "xtask")
        {
            found.push(words[1..].to_vec());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_blocks_are_run_and_output_blocks_are_not() {
        let text = "# Name\n```sh\ncargo run --release -- demo   # the main job\ncargo xtask test\n```\n\
                    ```text\ncargo is mentioned\n```\ncargo outside\n```sh\nls\n```\n";
        assert_eq!(commands(text), [["run", "--release", "--", "demo"]]);
    }
}
