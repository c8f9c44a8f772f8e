//! YAML of the JSON answers: block style, and every string that could be read as anything else is quoted as JSON, which
//! is YAML too (YAML 1.2 section 1.3).

use serde_json::Value;

/// One document, ending with a newline.
pub(crate) fn document(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => object(&mut text, value, 0),
        Value::Array(list) if !list.is_empty() => array(&mut text, value, 0),
        _ => text = format!("{}\n", scalar(value)),
    }
    text
}

fn object(text: &mut String, value: &Value, depth: usize) {
    for (index, (key, value)) in value.as_object().into_iter().flatten().enumerate() {
        // The first key of an object in a list stands behind its dash.
        if index > 0 || !text.ends_with("- ") {
            indent(text, depth);
        }
        text.push_str(&string(key));
        text.push(':');
        entry(text, value, depth);
    }
}

fn entry(text: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            text.push('\n');
            object(text, value, depth + 1);
        }
        Value::Array(list) if !list.is_empty() => {
            text.push('\n');
            array(text, value, depth);
        }
        _ => {
            text.push(' ');
            text.push_str(&scalar(value));
            text.push('\n');
        }
    }
}

fn array(text: &mut String, value: &Value, depth: usize) {
    for item in value.as_array().into_iter().flatten() {
        if !text.ends_with("- ") {
            indent(text, depth);
        }
        text.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => object(text, item, depth + 1),
            Value::Array(list) if !list.is_empty() => array(text, item, depth + 1),
            _ => {
                text.push_str(&scalar(item));
                text.push('\n');
            }
        }
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(value) => string(value),
        // Numbers, booleans, null, `{}` and `[]` are written as in JSON.
        other => other.to_string(),
    }
}

fn string(value: &str) -> String {
    if is_plain(value) {
        return value.to_owned();
    }
    // JSON leaves DEL and the C1 controls as they are; YAML wants them escaped.
    let escape =
        |letter: char| if letter.is_control() { format!("\\u{:04x}", u32::from(letter)) } else { letter.into() };
    Value::from(value).to_string().chars().map(escape).collect()
}

/// Words that no reader takes for a number, a truth value or syntax.
fn is_plain(value: &str) -> bool {
    const RESERVED: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    value.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte))
        && !RESERVED.contains(&value.to_ascii_lowercase().as_str())
}

fn indent(text: &mut String, depth: usize) {
    text.push_str(&"  ".repeat(depth));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_and_lists_nest() {
        let value = json!({
            "api": 1,
            "empty": [], "none": null, "nothing": {},
            "peers": [{ "id": "ab", "addresses": ["10.0.0.1", "fd00::1"] }, [1, [true, 2]], { "deep": { "x": 1.5 } }],
            "reason": "waits: for a ring",
        });
        let expected = "\
api: 1
empty: []
none: null
nothing: {}
peers:
- addresses:
  - \"10.0.0.1\"
  - \"fd00::1\"
  id: ab
- - 1
  - - true
    - 2
- deep:
    x: 1.5
reason: \"waits: for a ring\"
";
        assert_eq!(document(&value), expected);
        assert_eq!(document(&json!([])), "[]\n");
    }

    #[test]
    fn strings_that_look_like_something_else_are_quoted() {
        for text in ["no", "True", "12", "1e5", "", " a", "a: b", "- a", "#a", "~", "a\nb", "é", "0x1f", "{a"] {
            assert!(string(text).starts_with('"'), "{text:?}");
        }
        assert_eq!(string("\u{9b}31m"), "\"\\u009b31m\"");
        for text in ["ready", "/run/x.sock", "a-b_c.d", "north"] {
            assert_eq!(string(text), text);
        }
    }
}
