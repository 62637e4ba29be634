//! Names of nodes: Go's `strconv.Quote` without its outer quotes, both ways.
//!
//! A name is any bytes; the quoted form is text. One badly quoted name breaks a customer's `check` and `prune`, so
//! nothing but this module builds one.

use crate::printable::PRINTABLE;

fn is_printable(c: char) -> bool {
    let c = u32::from(c);
    if c < 0x80 {
        return (0x20..0x7f).contains(&c);
    }
    let at = PRINTABLE.partition_point(|&(start, _)| start <= c);
    at > 0 && c <= PRINTABLE[at - 1].1
}

/// The quoted form of a name.
#[must_use]
pub fn quote(name: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\x07' => out.push_str("\\a"),
                '\x08' => out.push_str("\\b"),
                '\t' => out.push_str("\\t"),
                '\n' => out.push_str("\\n"),
                '\x0b' => out.push_str("\\v"),
                '\x0c' => out.push_str("\\f"),
                '\r' => out.push_str("\\r"),
                c if is_printable(c) => out.push(c),
                c if u32::from(c) < 0x80 => {
                    write!(out, "\\x{:02x}", u32::from(c)).expect("strings take text");
                }
                c if u32::from(c) < 0x1_0000 => {
                    write!(out, "\\u{:04x}", u32::from(c)).expect("strings take text");
                }
                c => {
                    write!(out, "\\U{:08x}", u32::from(c)).expect("strings take text");
                }
            }
        }
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}").expect("strings take text");
        }
    }
    out
}

/// The name behind a quoted form, or `None` where Go's `strconv.Unquote` refuses.
#[must_use]
pub fn unquote(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'"' | b'\n' => return None,
            b'\\' => {
                let kind = *bytes.get(i + 1)?;
                i += 2;
                let simple = match kind {
                    b'a' => Some(0x07),
                    b'b' => Some(0x08),
                    b'f' => Some(0x0c),
                    b'n' => Some(b'\n'),
                    b'r' => Some(b'\r'),
                    b't' => Some(b'\t'),
                    b'v' => Some(0x0b),
                    b'\\' => Some(b'\\'),
                    b'"' => Some(b'"'),
                    _ => None,
                };
                if let Some(byte) = simple {
                    out.push(byte);
                    continue;
                }
                match kind {
                    b'x' => {
                        out.push(u8::try_from(digits(bytes, i, 2, 16)?).ok()?);
                        i += 2;
                    }
                    b'0'..=b'7' => {
                        out.push(u8::try_from(digits(bytes, i - 1, 3, 8)?).ok()?);
                        i += 2;
                    }
                    b'u' | b'U' => {
                        let n = if kind == b'u' { 4 } else { 8 };
                        let c = char::from_u32(digits(bytes, i, n, 16)?)?;
                        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                        i += n;
                    }
                    _ => return None,
                }
            }
            byte => {
                out.push(byte);
                i += 1;
            }
        }
    }
    Some(out)
}

fn digits(bytes: &[u8], from: usize, count: usize, radix: u32) -> Option<u32> {
    bytes.get(from..from + count)?.iter().try_fold(0u32, |n, b| {
        let digit = char::from(*b).to_digit(radix)?;
        n.checked_mul(radix)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Trap 7.
    #[test]
    fn names_are_quoted_as_go_quotes_them() {
        for (name, quoted) in [
            (&b"caf\xe9-latin1.txt"[..], "caf\\xe9-latin1.txt"),
            (b"q\"uote\\back\tslash\nnl.txt", "q\\\"uote\\\\back\\tslash\\nnl.txt"),
            ("html<&>\u{2028}.txt".as_bytes(), "html<&>\\u2028.txt"),
            (
                "zw-\u{200b}-nbsp-\u{a0}-shy-\u{ad}-fffd-\u{fffd}-clef-𝄞.txt".as_bytes(),
                "zw-\\u200b-nbsp-\\u00a0-shy-\\u00ad-fffd-\u{fffd}-clef-𝄞.txt",
            ),
            (b"\x01\x7f\x07\x08\x0b\x0c\r", "\\x01\\x7f\\a\\b\\v\\f\\r"),
            ("\u{e0001}".as_bytes(), "\\U000e0001"),
        ] {
            assert_eq!(quote(name), quoted);
            assert_eq!(unquote(quoted).as_deref(), Some(name));
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for bad in ["\"", "\\", "a\nb", "\\q", "\\x1", "\\400", "\\ud800", "\\U00110000", "\\'"] {
            assert_eq!(unquote(bad), None, "{bad:?}");
        }
        assert_eq!(unquote("\\101\u{a0}").as_deref(), Some("A\u{a0}".as_bytes()));
    }

    proptest! {
        #[test]
        fn every_name_comes_back(name in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(unquote(&quote(&name)), Some(name));
        }

        #[test]
        fn every_text_name_comes_back(name in "\\PC{0,20}[\u{0}-\u{10ffff}]{0,8}") {
            let quoted = quote(name.as_bytes());
            prop_assert!(!quoted.contains('\n'));
            prop_assert_eq!(unquote(&quoted), Some(name.into_bytes()));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            prop_assert!(unquote(&text).is_none_or(|name| name.len() <= text.len()));
        }
    }
}
