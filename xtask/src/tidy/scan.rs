//! Reads Rust as far as the rules need: what is code, what is a comment or a string, what is a test.

/// A source file with everything that is not product code blanked out, so that lines and columns stay.
#[derive(Debug)]
pub(super) struct Code {
    /// Code without comments and without the content of strings and characters.
    pub(super) all: String,
    /// The same without `#[cfg(test)]` items.
    pub(super) product: String,
    /// Line comments only, everything else blank.
    pub(super) comments: String,
}

/// Whether a whole file is test code.
pub(super) fn is_test_path(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "benches" || part == "examples")
        || path.starts_with("crates/testkit/")
        || path.starts_with("crates/sabotage/")
        || path.ends_with("/tests.rs")
}

/// Blanks comments, strings and tests.
pub(super) fn code(text: &str) -> Code {
    let (all, comments) = blank_text(text);
    let product = blank_tests(&all);
    Code { all, product, comments }
}

/// The text without comments and strings, and its line comments alone.
fn blank_text(text: &str) -> (String, String) {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut comments: Vec<u8> = bytes.iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }).collect();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let end = if rest.starts_with(b"//") {
            at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            at + block_comment(rest)
        } else if let Some(length) = raw_string(rest).filter(|_| !is_word_before(bytes, at)) {
            at + length
        } else if rest[0] == b'"' {
            at + quoted(rest, b'"')
        } else if rest[0] == b'\'' && is_character(rest) {
            at + quoted(rest, b'\'')
        } else {
            at += 1;
            continue;
        };
        if rest.starts_with(b"//") {
            comments[at..end].copy_from_slice(&bytes[at..end]);
        }
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    (String::from_utf8_lossy(&out).into_owned(), String::from_utf8_lossy(&comments).into_owned())
}

fn is_word_before(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// Length of `r"..."`, `r#"..."#`, `br#"..."#`, when one begins here.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let prefix = if rest.starts_with(b"br") { 2 } else { usize::from(rest.first() == Some(&b'r')) };
    if prefix == 0 {
        return None;
    }
    let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(prefix + hashes) != Some(&b'"') {
        return None;
    }
    let body = prefix + hashes + 1;
    let mut close = vec![b'"'];
    close.resize(hashes + 1, b'#');
    let found = rest[body..].windows(close.len()).position(|window| window == close);
    Some(found.map_or(rest.len(), |position| body + position + close.len()))
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// A character literal, not a lifetime: `'a'`, `'\n'`, `'é'`.
fn is_character(rest: &[u8]) -> bool {
    match rest.get(1) {
        Some(b'\\') => true,
        Some(byte) if byte.is_ascii() => rest.get(2) == Some(&b'\''),
        Some(_) => rest[1..].iter().take(6).skip(1).any(|byte| *byte == b'\''),
        None => false,
    }
}

/// Blanks every item that follows `#[cfg(test)]` or `#[test]`: to its closing brace, or to its semicolon.
fn blank_tests(code: &str) -> String {
    let mut out = code.as_bytes().to_vec();
    for marker in ["#[cfg(test)]", "#[test]", "#[tokio::test"] {
        let mut from = 0;
        while let Some(found) = code[from..].find(marker) {
            let start = from + found;
            let end = item_end(code.as_bytes(), start + marker.len());
            for byte in &mut out[start..end] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
            from = end;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn item_end(bytes: &[u8], from: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, byte) in bytes[from..].iter().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return from + offset + 1;
                }
            }
            b';' if depth == 0 => return from + offset + 1,
            _ => {}
        }
    }
    bytes.len()
}

/// Where `word` stands as a whole word, as line numbers from 1.
pub(super) fn lines_with_word(code: &str, word: &str) -> Vec<usize> {
    lines_with(code, |line| {
        line.match_indices(word).any(|(at, _)| {
            let is_part =
                |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
            let bytes = line.as_bytes();
            let before = at.checked_sub(1).and_then(|at| bytes.get(at));
            let starts_in_word = word.as_bytes().first().is_some_and(|byte| byte.is_ascii_alphanumeric());
            let ends_in_word = word.as_bytes().last().is_some_and(|byte| byte.is_ascii_alphanumeric());
            !((starts_in_word && is_part(before)) || (ends_in_word && is_part(bytes.get(at + word.len()))))
        })
    })
}

/// Lines, from 1, for which `is_hit` holds.
pub(super) fn lines_with(code: &str, is_hit: impl Fn(&str) -> bool) -> Vec<usize> {
    code.lines().enumerate().filter(|(_, line)| is_hit(line)).map(|(number, _)| number + 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_characters_are_blanked_and_lines_stay() {
        let text = "let a = \"x.unwrap()\"; // .unwrap()\n/* b /* c */ .unwrap() */ d('\"', '\\'', 'é'); e\nr#\"\"f\"#; g<'a>(h)\n";
        let code = code(text).all;
        assert!(!code.contains("unwrap"), "{code}");
        assert_eq!(code.lines().count(), text.lines().count());
        for kept in ["let a =", "d(", "; e", "; g<'a>(h)"] {
            assert!(code.contains(kept), "{kept}: {code}");
        }
    }

    #[test]
    fn tests_are_blanked_and_what_follows_them_is_not() {
        let text = "fn a() { b(); }\n#[cfg(test)]\nmod tests { fn x() { y.unwrap() } }\nfn c() {}\n#[cfg(test)]\nmod other;\nfn d() {}\n";
        let code = code(text);
        assert!(code.all.contains("unwrap") && !code.product.contains("unwrap"));
        assert!(code.product.contains("fn c()") && code.product.contains("fn d()"), "{}", code.product);
        assert!(!code.product.contains("mod other"));
    }

    #[test]
    fn a_word_is_a_whole_word() {
        assert_eq!(lines_with_word("a\nmy_unsafe x\nunsafe {\n", "unsafe"), [3]);
        assert_eq!(lines_with_word("todo!()\nmytodo!()\n", "todo!"), [1]);
    }
}
