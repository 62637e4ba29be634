//! JSON the way Go's `encoding/json` writes and reads it.
//!
//! Writing: `<`, `>`, `&`, U+2028 and U+2029 are escaped, other non-ASCII is raw. Reading: keys match without regard to
//! case, the last duplicate wins, unknown keys are skipped, `null` leaves a field as it was. `serde_json` does none of
//! these by itself, and all of them change either ids or meaning.

use std::borrow::Cow;

/// Appends `text` as a Go JSON string, quotes included.
pub(crate) fn push_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain = 0;
    let mut i = 0;
    while i < bytes.len() {
        let b = bytes[i];
        let (skip, escaped): (usize, Cow<'static, [u8]>) = match b {
            b'"' => (1, Cow::Borrowed(b"\\\"")),
            b'\\' => (1, Cow::Borrowed(b"\\\\")),
            b'\n' => (1, Cow::Borrowed(b"\\n")),
            b'\r' => (1, Cow::Borrowed(b"\\r")),
            b'\t' => (1, Cow::Borrowed(b"\\t")),
            // Since Go 1.22; older versions wrote \u0008 and \u000c.
            0x08 => (1, Cow::Borrowed(b"\\b")),
            0x0c => (1, Cow::Borrowed(b"\\f")),
            0x00..=0x1f | b'<' | b'>' | b'&' => {
                let mut e = b"\\u00".to_vec();
                e.push(HEX[usize::from(b >> 4)]);
                e.push(HEX[usize::from(b & 15)]);
                (1, Cow::Owned(e))
            }
            0xe2 if bytes[i..].starts_with("\u{2028}".as_bytes()) => (3, Cow::Borrowed(b"\\u2028")),
            0xe2 if bytes[i..].starts_with("\u{2029}".as_bytes()) => (3, Cow::Borrowed(b"\\u2029")),
            _ => {
                i += 1;
                continue;
            }
        };
        out.extend_from_slice(&bytes[plain..i]);
        out.extend_from_slice(&escaped);
        i += skip;
        plain = i;
    }
    out.extend_from_slice(&bytes[plain..]);
    out.push(b'"');
}

/// Appends raw bytes as a Go JSON string: what is not UTF-8 becomes the six characters `\ufffd`, a real U+FFFD stays raw.
pub(crate) fn push_lossy_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let mut inner = Vec::with_capacity(bytes.len() + 2);
    for chunk in bytes.utf8_chunks() {
        inner.clear();
        push_string(&mut inner, chunk.valid());
        out.extend_from_slice(&inner[1..inner.len() - 1]);
        // Go replaces byte by byte.
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
    out.push(b'"');
}

/// Appends a decimal number.
pub(crate) fn push_number(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(n % 10).unwrap_or(0);
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Parses like Go: bytes that are not UTF-8 are replaced rather than refused.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_str(&String::from_utf8_lossy(bytes)),
    }
}

/// The length of the object, list or string with which `bytes` begin, whatever its strings are made of; `None` when it does not end.
pub(crate) fn value_length(bytes: &[u8]) -> Option<usize> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        if *byte == b'"' && !in_string && !escaped && depth == 0 {
            return Some(at + 1);
        }
    }
    None
}

/// Declares a struct that is read the way Go reads one.
macro_rules! go_struct {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $( $(#[$fmeta:meta])* $fvis:vis $field:ident : $type:ty = $key:literal ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        $vis struct $name { $( $(#[$fmeta])* $fvis $field: $type, )* }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct GoVisitor;
                impl<'de> serde::de::Visitor<'de> for GoVisitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("a ", stringify!($name), " object"))
                    }
                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$name, A::Error> {
                        let mut value = <$name>::default();
                        while let Some(key) = map.next_key::<$crate::json::KeyText<'de>>()? {
                            let key = key.0.as_ref();
                            $(
                                if key.eq_ignore_ascii_case($key) {
                                    if let Some(inner) = map.next_value::<Option<$type>>()? {
                                        value.$field = inner;
                                    }
                                    continue;
                                }
                            )*
                            map.next_value::<serde::de::IgnoredAny>()?;
                        }
                        Ok(value)
                    }
                }
                deserializer.deserialize_map(GoVisitor)
            }
        }
    };
}
pub(crate) use go_struct;

/// A key that is borrowed when the JSON allows it.
pub(crate) struct KeyText<'a>(pub(crate) Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for KeyText<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = KeyText<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<KeyText<'de>, E> {
                Ok(KeyText(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<KeyText<'de>, E> {
                Ok(KeyText(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// Bytes written as standard base64 with padding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl<'de> serde::Deserialize<'de> for Base64 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::Engine as _;
        let text = <Cow<'_, str>>::deserialize(deserializer)?;
        // Go skips line ends inside base64.
        let text: Cow<'_, str> =
            if text.contains(['\r', '\n']) { text.replace(['\r', '\n'], "").into() } else { text };
        base64::engine::general_purpose::STANDARD
            .decode(text.as_bytes())
            .map(Base64)
            .map_err(serde::de::Error::custom)
    }
}

pub(crate) fn push_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    use base64::Engine as _;
    out.push(b'"');
    out.extend_from_slice(base64::engine::general_purpose::STANDARD.encode(bytes).as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    go_struct! {
        #[derive(Debug, Default, PartialEq)]
        struct Sample {
            tree: String = "tree",
            size: u32 = "size",
        }
    }

    /// Trap 18.
    #[test]
    fn keys_match_without_case_and_the_last_duplicate_wins() {
        let sample: Sample = parse(br#"{"tree":"a","x":[1,{}],"Tree":"b","SIZE":7}"#).unwrap();
        assert_eq!(sample, Sample { tree: "b".into(), size: 7 });
        let sample: Sample = parse(br#"{"tree":"a","tree":null}"#).unwrap();
        assert_eq!(sample.tree, "a");
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        assert!(parse::<Sample>(br#"{"size":-1}"#).is_err());
        assert!(parse::<Sample>(br#"{"size":4294967296}"#).is_err());
    }

    #[test]
    fn strings_are_escaped_like_go() {
        let mut out = Vec::new();
        push_string(&mut out, "a<&>\"\\\u{2028}\n\u{1}é\u{fffd}\u{8}");
        assert_eq!(out, "\"a\\u003c\\u0026\\u003e\\\"\\\\\\u2028\\n\\u0001é\u{fffd}\\b\"".as_bytes());
        out.clear();
        push_lossy_string(&mut out, b"raw-\xff\xe9-t");
        assert_eq!(out, br#""raw-\ufffd\ufffd-t""#);
    }

    #[test]
    fn numbers_are_decimal() {
        for n in [0, 9, 10, 12345, u64::MAX] {
            let mut out = Vec::new();
            push_number(&mut out, n);
            assert_eq!(out, n.to_string().as_bytes());
        }
    }
}
