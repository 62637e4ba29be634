//! Quoting for SQL, patterns and connection strings. No name reaches a statement except through here.

/// A name as an SQL identifier, always quoted.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as an SQL literal, for sessions in which `standard_conforming_strings` is on.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A value inside a libpq connection string.
pub(super) fn conninfo_value(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A field of a password file, where `:` and `\` are special.
pub(super) fn passfile_field(text: &str) -> String {
    text.replace('\\', "\\\\").replace(':', "\\:")
}

/// A list of literals for `IN (…)` or `ARRAY[…]`.
pub(super) fn literals(texts: &[String]) -> String {
    texts.iter().map(|text| literal(text)).collect::<Vec<_>>().join(", ")
}

/// The parts of a dotted, possibly quoted name, `schema.table`; `None` where it is not one.
pub(super) fn split_qualified(text: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut characters = text.chars().peekable();
    loop {
        let mut part = String::new();
        if characters.peek() == Some(&'"') {
            characters.next();
            loop {
                match characters.next()? {
                    '"' if characters.peek() == Some(&'"') => {
                        characters.next();
                        part.push('"');
                    }
                    '"' => break,
                    character => part.push(character),
                }
            }
        } else {
            while let Some(character) = characters.peek().copied().filter(|character| *character != '.') {
                if character == '"' {
                    return None;
                }
                part.push(character);
                characters.next();
            }
        }
        if part.is_empty() || part.contains('\0') {
            return None;
        }
        parts.push(part);
        match characters.next() {
            None => return Some(parts),
            Some('.') => {}
            Some(_) => return None,
        }
    }
}

/// The elements of a setting that is a list of identifiers, as `search_path` is stored.
pub(super) fn split_list(text: &str) -> Vec<String> {
    let mut elements = Vec::new();
    let mut element = String::new();
    let mut was_quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                was_quoted = true;
                while let Some(inner) = characters.next() {
                    if inner == '"' {
                        if characters.peek() != Some(&'"') {
                            break;
                        }
                        characters.next();
                    }
                    element.push(inner);
                }
            }
            ',' => {
                elements.push(std::mem::take(&mut element));
                was_quoted = false;
            }
            character if character.is_whitespace() && (element.is_empty() || was_quoted) => {}
            character => element.push(character),
        }
    }
    if was_quoted || !element.is_empty() || !elements.is_empty() {
        elements.push(element);
    }
    elements.iter().map(|element| element.trim_end().to_owned()).collect()
}

/// Whether a host is this machine.
pub(super) fn is_local(host: &str) -> bool {
    host.starts_with('/')
        || host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_survives_quotes_newlines_and_backslashes() {
        assert_eq!(identifier("a\"b\n"), "\"a\"\"b\n\"");
        assert_eq!(literal("a'b\\"), "'a''b\\'");
        assert_eq!(conninfo_value("a'b\\c d"), "'a\\'b\\\\c d'");
        assert_eq!(passfile_field("a:b\\"), "a\\:b\\\\");
    }

    #[test]
    fn qualified_names_are_split_or_refused() {
        let parts = |text: &str| split_qualified(text).map(|parts| parts.join("|"));
        assert_eq!(parts("public.orders").as_deref(), Some("public|orders"));
        assert_eq!(parts("\"a.b\".\"c\"\"d\"").as_deref(), Some("a.b|c\"d"));
        for wrong in ["", ".", "a.", "\"a", "a\"b", "\"a\"b", "a..b"] {
            assert_eq!(parts(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn stored_lists_are_split_into_their_elements() {
        assert_eq!(split_list("\"$user\", public"), ["$user", "public"]);
        assert_eq!(split_list("\"a, b\"\"c\""), ["a, b\"c"]);
        assert_eq!(split_list("\"\""), [""]);
        assert!(split_list("").is_empty());
    }
}
