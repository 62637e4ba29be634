//! Shape: does the document have the tables, keys and types that it may have? Says everything that is wrong with the
//! shape and removes it, so that what is left can be judged for its meaning in the same pass.

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::diagnostic::{Draft, Place, Sink, quoted};
use super::mask;
use super::nearest::nearest;
use super::schema::{known_keys, resolve, shared, type_word};
use crate::secret::{SecretRef, SecretRefError};

pub(super) const SECRET_HINT: &str = "write where it is to be had: \"file:/absolute/path\", \"env:NAME\", \"cmd:program arg\", \
    \"systemd:name\" or \"vault:path#field\"; who has seen this file has seen the secret, so change it";

/// Checks the shape of a document, reports what is wrong, and leaves only what conforms.
pub(super) fn conform(document: &mut Spanned<DeTable<'_>>, text: usize, sink: &mut Sink) {
    let span = document.span();
    table(document.get_mut(), span, shared(), &Path { text, keys: Vec::new() }, sink);
}

struct Path {
    text: usize,
    keys: Vec<String>,
}

impl Path {
    fn below(&self, key: &str) -> Self {
        let mut keys = self.keys.clone();
        keys.push(key.to_owned());
        Self { text: self.text, keys }
    }

    fn place(&self, span: std::ops::Range<usize>) -> Place {
        Place { text: self.text, span }
    }

    /// `service `orders``, `[defaults]`, `source `db` of `orders``: how a person speaks of this table.
    fn subject(&self) -> String {
        let keys: Vec<&str> = self.keys.iter().map(String::as_str).collect();
        match keys.as_slice() {
            [] => "the top level".to_owned(),
            ["services", name] => format!("service {}", quoted(name)),
            ["repositories", name] => format!("repository {}", quoted(name)),
            ["repositories", repository, "keys", name] => {
                format!("key {} of {}", quoted(name), quoted(repository))
            }
            ["tiers", name] => format!("tier {}", quoted(name)),
            ["services", service, "sources", name] => {
                format!("source {} of {}", quoted(name), quoted(service))
            }
            ["services", service, "adopted", name] => {
                format!("the set {} of {}", quoted(name), quoted(service))
            }
            ["services", service, "sources" | "adopted", name, "checks"] => {
                format!("a check of {} of {}", quoted(name), quoted(service))
            }
            ["services", service, inner @ ..] => format!("`{}` of {}", inner.join("."), quoted(service)),
            other => quoted(&other.join(".")),
        }
    }

    fn last(&self) -> &str {
        self.keys.last().map_or("", String::as_str)
    }
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Whether the value may stay.
fn value(value: &mut Spanned<DeValue<'_>>, schema: &Value, path: &Path, sink: &mut Sink) -> bool {
    let span = value.span();
    if schema.get("x-kind").and_then(Value::as_str) == Some("secret") {
        return secret(value, path, sink);
    }
    let node = resolve(schema);
    if let Some(branches) = node.get("anyOf").and_then(Value::as_array) {
        return tagged(value, branches, path, sink);
    }
    let wanted = node.get("type").and_then(Value::as_str).unwrap_or("object");
    match (wanted, value.get_mut()) {
        ("object", DeValue::Table(entries)) => {
            table(entries, span, node, path, sink);
            true
        }
        ("array", DeValue::Array(items)) => {
            let Some(item_schema) = node.get("items") else { return true };
            for mut item in std::mem::replace(items, DeArray::new()) {
                if self::value(&mut item, item_schema, path, sink) {
                    items.push(item);
                }
            }
            true
        }
        ("string", DeValue::String(text)) => choice(text, span, node, path, sink),
        ("boolean", DeValue::Boolean(_)) => true,
        ("integer", DeValue::Integer(number)) => {
            let digits = number.as_str().replace('_', "");
            let Some(number) = i128::from_str_radix(&digits, number.radix()).ok() else { return false };
            let largest: i128 = match node.get("format").and_then(Value::as_str) {
                Some("uint16") => u16::MAX.into(),
                Some("uint32") => u32::MAX.into(),
                _ => i64::MAX.into(),
            };
            if (0..=largest).contains(&number) {
                return true;
            }
            Draft::error(path.place(span), format!("`{}` must lie between 0 and {largest}", path.last()))
                .report(sink);
            false
        }
        (_, found) => {
            let found = kind_of(found);
            let word = type_word(schema);
            let hint = match (wanted, word.as_str(), found) {
                ("string", "duration" | "duration or `not-applicable`", "a whole number") => {
                    Some("a duration is text with a unit, e.g. \"90d\", \"24h\", \"1h 30m\"".to_owned())
                }
                ("array", _, "text") => Some("put it in brackets: [\"…\"]".to_owned()),
                ("array", "list of tables", "a table") => Some("put it in double brackets: [[…]]".to_owned()),
                ("string", _, _) if found != "a table" && found != "a list" => {
                    Some("put it in quotes".to_owned())
                }
                ("boolean", _, "text") => Some("write true or false without quotes".to_owned()),
                ("integer", _, "text") => Some("write the number without quotes".to_owned()),
                ("object", _, "text") if path.last() == "schedule" => {
                    Some("write { cron = \"0 2 * * *\", zone = \"Europe/Amsterdam\" }".to_owned())
                }
                _ => None,
            };
            Draft::error(path.place(span), format!("`{}` of {} is {found}", path.last(), parent(path)))
                .label(format!("wanted: {word}"))
                .hint_if(hint)
                .report(sink);
            false
        }
    }
}

fn parent(path: &Path) -> String {
    let mut keys = path.keys.clone();
    keys.pop();
    Path { text: path.text, keys }.subject()
}

fn secret(value: &Spanned<DeValue<'_>>, path: &Path, sink: &mut Sink) -> bool {
    let place = path.place(value.span());
    let error = match value.get_ref() {
        DeValue::String(text) => match SecretRef::try_from(text.to_string()) {
            Ok(_) => return true,
            Err(SecretRefError::PlainText) => "stands here in plain text".to_owned(),
            Err(error @ SecretRefError::Empty(_)) => format!("is no reference to a secret: {error}"),
        },
        DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => "stands here in plain text".to_owned(),
    };
    sink.mask(place.clone());
    Draft::error(place, format!("`{}` of {} {error}", path.last(), parent(path)))
        .label("not shown")
        .hint(SECRET_HINT)
        .report(sink);
    false
}

fn choice(text: &str, span: std::ops::Range<usize>, node: &Value, path: &Path, sink: &mut Sink) -> bool {
    let Some(choices) = node.get("enum").and_then(Value::as_array) else { return true };
    let choices: Vec<&str> = choices.iter().filter_map(Value::as_str).collect();
    if choices.contains(&text) {
        return true;
    }
    Draft::error(path.place(span), format!("{} is no value of `{}`", quoted(text), path.last()))
        .label(one_of(&choices))
        .hint_if(nearest(text, choices.iter().copied()).map(|near| format!("did you mean \"{near}\"?")))
        .report(sink);
    false
}

fn one_of(choices: &[&str]) -> String {
    format!("one of {}", choices.join(", "))
}

/// A table whose `kind` says which of several shapes it has. Wrapped under its kind, which is how serde reads an enum.
fn tagged(value: &mut Spanned<DeValue<'_>>, branches: &[Value], path: &Path, sink: &mut Sink) -> bool {
    let span = value.span();
    let kinds: Vec<(&str, &Value)> = branches
        .iter()
        .map(resolve)
        .filter_map(|branch| Some((branch.pointer("/properties/kind/const")?.as_str()?, branch)))
        .collect();
    let names: Vec<&str> = kinds.iter().map(|(name, _)| *name).collect();
    let DeValue::Table(entries) = value.get_mut() else {
        Draft::error(path.place(span), format!("{} must be a table", path.subject()))
            .hint(format!("write {{ kind = \"{}\", … }}", names.first().unwrap_or(&"")))
            .report(sink);
        return false;
    };
    let Some(kind) = entries.get("kind") else {
        let misspelt =
            entries.keys().find(|key| nearest(key.get_ref(), ["kind", "type"]).is_some()).map(Spanned::span);
        Draft::error(path.place(misspelt.unwrap_or(span)), format!("{} has no `kind`", path.subject()))
            .label(one_of(&names))
            .hint(format!("add kind = \"{}\"", names.first().unwrap_or(&"")))
            .report(sink);
        return false;
    };
    let kind_place = path.place(kind.span());
    let DeValue::String(written) = kind.get_ref() else {
        Draft::error(kind_place, "`kind` is text").label(one_of(&names)).report(sink);
        return false;
    };
    let written = written.to_string();
    let Some((name, branch)) = kinds.iter().find(|(name, _)| *name == written) else {
        let noun = if path.last() == "checks" { "check" } else { "source" };
        Draft::error(kind_place, format!("{} is no kind of {noun}", quoted(&written)))
            .label(one_of(&names))
            .hint_if(nearest(&written, names.iter().copied()).map(|near| format!("did you mean \"{near}\"?")))
            .report(sink);
        return false;
    };
    table(entries, span.clone(), branch, path, sink);
    let inner = Spanned::new(span.clone(), DeValue::Table(std::mem::take(entries)));
    entries.insert(Spanned::new(span, (*name).to_owned().into()), inner);
    true
}

fn table(
    entries: &mut DeTable<'_>,
    span: std::ops::Range<usize>,
    node: &Value,
    path: &Path,
    sink: &mut Sink,
) {
    let empty = serde_json::Map::new();
    let properties = node.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let any = node.get("additionalProperties").filter(|schema| schema.is_object());
    let mut refused = Vec::new();
    let mut present = Vec::new();
    for (key, entry) in entries.iter_mut() {
        let name = key.get_ref().to_string();
        if let Some(schema) = properties.get(&name).or(any) {
            let below = path.below(&name);
            if !value(entry, schema, &below, sink) {
                sink.refuse(below.keys.join("."));
                refused.push(name.clone());
            }
            present.push(name);
        } else {
            unknown_key(key, entry, &name, properties, path, sink);
            refused.push(name);
        }
    }
    for name in refused {
        entries.remove(name.as_str());
    }
    for key in node.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    {
        if !present.iter().any(|name| name == key) && !sink.has_refused(&path.below(key).keys.join(".")) {
            let example = properties
                .get(key)
                .and_then(|schema| schema.get("examples"))
                .and_then(|examples| examples.get(0))
                .and_then(Value::as_str);
            let meaning = properties
                .get(key)
                .and_then(|schema| schema.get("description"))
                .and_then(Value::as_str)
                .unwrap_or("");
            Draft::error(path.place(span.clone()), format!("{} has no `{key}`", path.subject()))
                .hint(match example {
                    Some(example) => format!("add {key} = \"{example}\" ({})", lower_first(meaning)),
                    None => format!("add {key} = … ({})", lower_first(meaning)),
                })
                .report(sink);
        }
    }
}

/// The first sentence, as it reads inside a sentence.
fn lower_first(sentence: &str) -> String {
    let first = sentence.split(". ").next().unwrap_or(sentence).trim_end_matches('.');
    let mut characters = first.chars();
    match (characters.next(), characters.clone().next()) {
        (Some(head), Some(next)) if next.is_lowercase() || next == ' ' => {
            head.to_lowercase().chain(characters).collect()
        }
        _ => first.to_owned(),
    }
}

fn unknown_key(
    key: &Spanned<std::borrow::Cow<'_, str>>,
    entry: &Spanned<DeValue<'_>>,
    name: &str,
    properties: &serde_json::Map<String, Value>,
    path: &Path,
    sink: &mut Sink,
) {
    let near = nearest(name, known_keys(properties));
    let is_secret = near
        .and_then(|near| properties.get(near))
        .is_some_and(|schema| schema.get("x-kind").and_then(Value::as_str) == Some("secret"));
    if is_secret || mask::is_secret_name(name) {
        sink.mask(path.place(entry.span()));
    }
    if let Some(near) = near {
        sink.refuse(path.below(near).keys.join("."));
    }
    let at_top = shared().get("properties").and_then(|top| top.get(name));
    let hint = match (near, at_top) {
        (Some(near), _) => Some(format!("did you mean `{near}`?")),
        (None, Some(top)) if !path.keys.is_empty() => Some(
            if resolve(top).get("properties").is_some()
                || resolve(top).get("additionalProperties").is_some_and(Value::is_object)
            {
                format!("`{name}` stands at the top level: write [{name}…]")
            } else {
                format!("`{name}` stands at the top level: move it above the first [table]")
            },
        ),
        (None, _) => None,
    };
    let mut known: Vec<&str> = known_keys(properties).collect();
    known.sort_unstable();
    Draft::error(path.place(key.span()), format!("{} is no key of {}", quoted(name), path.subject()))
        .hint(hint.unwrap_or_else(|| format!("the keys here are {}", known.join(", "))))
        .report(sink);
}
