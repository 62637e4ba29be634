//! Quoting for SQL, patterns and connection strings. No name reaches a statement except through here.

/// The character that stands for the byte 0, so that a byte that is no UTF-8 (0x80 to 0xff) has one of U+10FF80 to U+10FFFF.
const BYTES: u32 = 0x10_ff00;

/// The byte that a character stands for, where it stands for one.
fn byte_of(character: char) -> Option<u8> {
    let byte = u32::from(character).checked_sub(BYTES)?;
    u8::try_from(byte).ok().filter(|byte| *byte >= 0x80)
}

/// Bytes of the server as a text: what is UTF-8 is itself, and each other byte is one character of its own that nobody
/// uses. Nothing is lost and no two byte strings have one text, so `bytes_of` turns it back.
pub(super) fn text_of(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let stand_in = |byte: u8| char::from_u32(BYTES + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER);
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if byte_of(character).is_some() {
                // The character itself, were it ever used, must not be taken for a byte.
                text.extend(character.encode_utf8(&mut [0; 4]).bytes().map(stand_in));
            } else {
                text.push(character);
            }
        }
        text.extend(chunk.invalid().iter().copied().map(stand_in));
    }
    text
}

/// The bytes that `text_of` made a text of.
pub(super) fn bytes_of(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        match byte_of(character) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// Whether a text stands for bytes that are no UTF-8.
pub(super) fn has_bytes(text: &str) -> bool {
    text.chars().any(|character| byte_of(character).is_some())
}

/// A text of the server's as hexadecimal digits of its bytes, in SQL: what no conversion of encodings touches.
///
/// The server converts every text that it sends from its database's encoding. Names in shared catalogues have none: each
/// is the bytes that the database sent that it was made in. Converted from another database's encoding they come out as
/// another name, or not at all.
pub(super) fn hexadecimal(text: &str) -> String {
    format!("encode({}, 'hex')", as_bytes(text))
}

/// A text of the server's as ASCII, in SQL: other bytes are written as octal numbers after a backslash.
pub(super) fn escaped(text: &str) -> String {
    format!("encode({}, 'escape')", as_bytes(text))
}

fn as_bytes(text: &str) -> String {
    format!("replace({text}, '\\', '\\\\')::bytea")
}

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
    fn bytes_that_are_no_text_survive_as_one() {
        for bytes in
            [&b"plain"[..], "é".as_bytes(), b"\xe9", b"a\xc3\x28\xff\"", "\u{10ffe9}".as_bytes(), b""]
        {
            let text = text_of(bytes);
            assert_eq!(bytes_of(&text), bytes);
            assert_eq!(text_of(&bytes_of(&text)), text);
        }
        assert_eq!(text_of("é".as_bytes()), "é");
        assert_ne!(text_of(b"\xe9"), text_of("\u{10ffe9}".as_bytes()), "no two byte strings have one text");
        assert!(has_bytes(&text_of(b"\xe9")) && !has_bytes("é"));
        assert_eq!(text_of(b"a\xe9\"b=c").split_once('=').unwrap().1, "c", "what surrounds them is itself");
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
