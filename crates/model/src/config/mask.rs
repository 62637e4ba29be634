//! Which stretches of a text may be a secret, judged from the text alone.
//!
//! A file that cannot be parsed still has lines to show, and a password may be on them. This errs on the side of stars:
//! hiding too much costs a look into the file, hiding too little costs a password.

use std::ops::Range;

use super::nearest::nearest;
use crate::secret::SecretRef;

/// Words whose value is hidden when they stand before an `=`.
const WORDS: &[&str] = &[
    "password",
    "passphrase",
    "passwd",
    "passwort",
    "pwd",
    "secret",
    "token",
    "credential",
    "api_key",
    "apikey",
    "access_key",
    "account_key",
    "service_account",
    "private_key",
];

/// Whether a key's name, or what it was probably meant to be, says that its value is a secret.
pub(super) fn is_secret_name(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "_");
    WORDS.iter().any(|word| key.contains(word)) || nearest(&key, WORDS.iter().copied()).is_some()
}

/// Stretches that follow a name for a secret and an `=`, or stand before the `@` of a URL, and are not a reference.
pub(crate) fn looks_secret(text: &str) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    for (at, _) in text.match_indices('=') {
        let before = text.get(..at).unwrap_or_default().trim_end_matches([' ', '\t', '"', '\'']);
        let is_name = |character: char| character.is_alphanumeric() || character == '_' || character == '-';
        let name = before.rsplit(|character| !is_name(character)).next().unwrap_or_default();
        // 64: a name is at most 63 long, and a file of `=` must not cost its square.
        if name.len() < 64 && is_secret_name(name) {
            spans.extend(value_after(text, at + 1));
        }
    }
    for (at, _) in text.match_indices("://") {
        spans.extend(user_info(text, at + 3));
    }
    spans
}

fn value_after(text: &str, from: usize) -> Option<Range<usize>> {
    let value = text.get(from..)?.trim_start_matches([' ', '\t']);
    let start = text.len() - value.len();
    let length = value_length(value);
    let shown = value.get(..length)?.trim_matches(['"', '\'']);
    (length > 0 && SecretRef::try_from(shown.to_owned()).is_err()).then_some(start..start + length)
}

fn value_length(value: &str) -> usize {
    for triple in ["\"\"\"", "'''"] {
        if let Some(inner) = value.strip_prefix(triple) {
            return inner.find(triple).map_or(value.len(), |at| at + 6);
        }
    }
    let line = value.find(['\n', '\r']).unwrap_or(value.len());
    let first_line = value.get(..line).unwrap_or(value);
    match value.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let mut escaped = false;
            for (at, character) in first_line.char_indices().skip(1) {
                match character {
                    _ if escaped => escaped = false,
                    '\\' if quote == '"' => escaped = true,
                    _ if character == quote => return at + 1,
                    _ => {}
                }
            }
            line
        }
        Some('[' | '{') => line,
        _ => first_line
            .find(|character: char| {
                character.is_whitespace() || matches!(character, '"' | '\'' | '&' | ',' | '}')
            })
            .unwrap_or(line),
    }
}

fn user_info(text: &str, from: usize) -> Option<Range<usize>> {
    let rest = text.get(from..)?;
    let end = rest
        .find(|character: char| {
            character.is_whitespace() || matches!(character, '/' | '"' | '\'' | '@' | '?' | '#')
        })
        .unwrap_or(rest.len());
    // A file that ends here may have been cut off before its `@`.
    let is_user_info = rest.get(end..)?.starts_with('@') || end == rest.len();
    let secret = from + rest.get(..end)?.find(':')? + 1;
    (is_user_info && secret < from + end).then_some(secret..from + end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(text: &str) -> Vec<&str> {
        looks_secret(text).into_iter().map(|span| &text[span]).collect()
    }

    #[test]
    fn values_after_a_word_for_a_secret_are_hidden() {
        assert_eq!(hidden("password = \"hunter2\"\n"), ["\"hunter2\""]);
        assert_eq!(hidden("password = hunter2\n"), ["hunter2"]);
        assert_eq!(hidden("password = \"hunter2\nx = 1"), ["\"hunter2"]);
        assert_eq!(hidden("\"db-password\"='a b'"), ["'a b'"]);
        assert_eq!(hidden("password = \"\"\"\nhunter2"), ["\"\"\"\nhunter2"]);
        assert_eq!(hidden("x = \"host=db password=hunter2 user=a\""), ["hunter2"]);
        assert_eq!(hidden("API-KEY = \"a\\\"b\""), ["\"a\\\"b\""]);
        assert_eq!(hidden("passwrod = hunter2"), ["hunter2"], "a slip");
        assert_eq!(hidden("x = \"postgres://me:hunter2@db/x\""), ["hunter2"]);
    }

    #[test]
    fn references_and_other_words_are_shown() {
        for text in
            ["password = \"file:/etc/key\"", "# the password lives elsewhere", "x = \"https://db:5432/x\""]
        {
            assert_eq!(hidden(text), Vec::<&str>::new(), "{text}");
        }
    }
}
