//! Canonical JSON (RFC 8785, "JCS"): one value has one spelling, so that a digest or a signature of it means something.
//!
//! Narrower than the RFC on purpose: numbers are integers that every JSON reader keeps exactly (at most 2^53 − 1 in
//! magnitude). Anything else is refused rather than rounded; larger numbers and fractions belong into strings.

use serde_json::Value;

/// Largest integer that every JSON reader keeps exactly: 2^53 − 1.
pub const INTEGER_MAX: u64 = (1 << 53) - 1;

/// Why a value has no canonical form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// A fraction, or an integer beyond [`INTEGER_MAX`].
    #[error("the number {number} at `{path}` is not an integer of at most 53 bits; write it as a string")]
    Number {
        /// The number as JSON would print it.
        number: String,
        /// Where it is: member names and positions joined by `/`.
        path: String,
    },
    /// The value could not be turned into JSON at all.
    #[error("turn a value into JSON: {0}")]
    Unserializable(String),
}

/// The only spelling of `value`: members sorted by UTF-16 code units, no white space, minimal escapes.
pub fn to_bytes(value: &Value) -> Result<Vec<u8>, CanonicalError> {
    let mut out = String::new();
    let mut path = Vec::new();
    write(value, &mut out, &mut path)?;
    Ok(out.into_bytes())
}

/// The only spelling of anything serializable; see [`to_bytes`].
pub fn of<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    let value =
        serde_json::to_value(value).map_err(|error| CanonicalError::Unserializable(error.to_string()))?;
    to_bytes(&value)
}

/// The same value with every number that has no canonical form written as a string; never refused by [`to_bytes`].
#[must_use]
pub fn exact(value: Value) -> Value {
    match value {
        Value::Number(number) => match integer(&number) {
            Some(_) => Value::Number(number),
            None => Value::String(number.to_string()),
        },
        Value::Array(items) => Value::Array(items.into_iter().map(exact).collect()),
        Value::Object(members) => {
            Value::Object(members.into_iter().map(|(name, value)| (name, exact(value))).collect())
        }
        Value::Null | Value::Bool(_) | Value::String(_) => value,
    }
}

fn integer(number: &serde_json::Number) -> Option<i64> {
    let limit = INTEGER_MAX.cast_signed();
    number.as_i64().filter(|integer| (-limit..=limit).contains(integer))
}

fn write<'a>(value: &'a Value, out: &mut String, path: &mut Vec<&'a str>) -> Result<(), CanonicalError> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::String(text) => quote(text, out),
        Value::Number(number) => match integer(number) {
            Some(integer) => out.push_str(&integer.to_string()),
            None => {
                return Err(CanonicalError::Number { number: number.to_string(), path: path.join("/") });
            }
        },
        Value::Array(items) => {
            out.push('[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                path.push("[]");
                write(item, out, path)?;
                path.pop();
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut sorted: Vec<(&String, &Value)> = members.iter().collect();
            sorted.sort_unstable_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (position, (name, member)) in sorted.into_iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                quote(name, out);
                out.push(':');
                path.push(name);
                write(member, out, path)?;
                path.pop();
            }
            out.push('}');
        }
    }
    Ok(())
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            control if control < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(control))),
            plain => out.push(plain),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn text(value: &Value) -> String {
        String::from_utf8(to_bytes(value).unwrap()).unwrap()
    }

    #[test]
    fn members_are_sorted_by_utf16_as_the_rfc_shows() {
        // RFC 8785, 3.2.3: the order differs from that of code points in its last two members.
        let value = json!({"\u{20ac}": "Euro Sign", "\r": "Carriage Return", "\u{fb33}": "Hebrew", "1": "One",
            "\u{1f600}": "Emoji", "\u{80}": "Control", "\u{f6}": "Latin"});
        assert_eq!(
            text(&value),
            "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\"\u{f6}\":\"Latin\",\"\u{20ac}\":\"Euro Sign\",\"\u{1f600}\":\"Emoji\",\"\u{fb33}\":\"Hebrew\"}"
        );
    }

    #[test]
    fn strings_are_escaped_as_the_rfc_shows() {
        // RFC 8785, 3.2.2.2.
        let value = json!("\u{20ac}$\u{f}\nA'B\"\\\\\"/");
        assert_eq!(text(&value), "\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"");
    }

    #[test]
    fn numbers_that_a_reader_could_round_are_refused_and_named() {
        for number in [json!(1.5), json!(1.0), json!(u64::MAX), json!(INTEGER_MAX + 1), json!(i64::MIN)] {
            let error = to_bytes(&json!({"a": [number]})).unwrap_err();
            assert!(matches!(error, CanonicalError::Number { path, .. } if path == "a/[]"));
            assert!(to_bytes(&exact(json!({"a": [number]}))).is_ok());
        }
        assert_eq!(text(&json!([INTEGER_MAX, -1, 0])), "[9007199254740991,-1,0]");
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-(INTEGER_MAX.cast_signed())..=INTEGER_MAX.cast_signed()).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[a-c\\u{0}-\\u{20}\"\\\\\u{ffff}\u{10000}]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c\u{ffff}\u{10000}]{0,2}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn reading_back_yields_the_value_and_the_same_spelling(value in values()) {
            let bytes = to_bytes(&value).unwrap();
            let back: Value = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(&back, &value);
            prop_assert_eq!(to_bytes(&back).unwrap(), bytes);
        }

        #[test]
        fn what_is_exact_is_left_alone(value in values()) {
            prop_assert_eq!(exact(value.clone()), value);
        }
    }
}
