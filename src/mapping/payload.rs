//! A payload as it came, JSON, a form or XML, as the JSON that a mapping reads.
//!
//! A form is an object of texts; a name that comes twice has a list. XML is an object by the names
//! of its elements without their prefixes, and an element without others in it is a text; what is
//! repeated is a list. Attributes are not read, but for `xsi:nil`. Entities of a document's own are
//! refused, so that nothing small unfolds into something large.

use quick_xml::Reader;
use quick_xml::events::{BytesRef, BytesStart, Event};
use serde_json::{Map, Value};

use crate::limits::HOOK_DEPTH_MAX;
use crate::mapping::Unmappable;

/// The forms that a payload may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// JSON.
    Json,
    /// `application/x-www-form-urlencoded`.
    Urlencoded,
    /// XML, such as SOAP.
    Xml,
}

impl Form {
    /// The form of a payload by how it looks, or by its content type where that says nothing: many
    /// CRMs send JSON under any name.
    pub fn of(content_type: Option<&str>, payload: &[u8]) -> Self {
        match payload.trim_ascii_start().first() {
            Some(b'{' | b'[') => Self::Json,
            Some(b'<') => Self::Xml,
            _ if looks_urlencoded(payload) => Self::Urlencoded,
            _ if content_type.is_some_and(|name| name.contains("urlencoded")) => Self::Urlencoded,
            // A byte order mark, say, or what is no payload at all: the reader says what is wrong.
            _ if content_type.is_some_and(|name| name.contains("xml")) => Self::Xml,
            _ => Self::Json,
        }
    }
}

/// Whether it is `name=value` of nothing but characters that a form may hold.
fn looks_urlencoded(payload: &[u8]) -> bool {
    let payload = payload.trim_ascii();
    let may_be =
        |byte: &u8| byte.is_ascii_alphanumeric() || b"=&%+-_.*~[]$:/@,;!'()".contains(byte);
    payload.contains(&b'=') && payload.iter().all(may_be)
}

/// Reads a payload.
///
/// # Errors
/// It can't be read in this form; where, and nothing of what stands there.
pub fn read(form: Form, payload: &[u8]) -> Result<Value, Unmappable> {
    let read = match form {
        Form::Json => serde_json::from_slice(payload).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!("is no JSON at line {line}, column {column}")
        }),
        Form::Urlencoded => Ok(urlencoded(payload)),
        Form::Xml => xml(payload),
    };
    read.map_err(|problem| Unmappable { field: "body".into(), path: "$".into(), problem })
}

fn urlencoded(payload: &[u8]) -> Value {
    let mut object = Map::new();
    for (name, value) in form_urlencoded::parse(payload.trim_ascii()) {
        put(&mut object, &name, Value::from(value.as_ref()));
    }
    Value::Object(object)
}

/// Adds a value under a name; what is there already becomes a list.
fn put(object: &mut Map<String, Value>, name: &str, value: Value) {
    match object.get_mut(name) {
        None => {
            object.insert(name.to_owned(), value);
        }
        Some(Value::Array(values)) => values.push(value),
        Some(first) => *first = Value::Array(vec![first.take(), value]),
    }
}

/// An element whose end has not come yet.
#[derive(Default)]
struct Open {
    name: String,
    is_nil: bool,
    text: String,
    children: Map<String, Value>,
}

impl Open {
    fn new(start: &BytesStart<'_>) -> Self {
        let is_nil = start.attributes().flatten().any(|attribute| {
            attribute.key.local_name().as_ref() == "nil" && attribute.value.as_ref() == "true"
        });
        let name = start.local_name().as_ref().to_owned();
        Self { name, is_nil, ..Self::default() }
    }

    fn value(self) -> Value {
        if self.is_nil {
            Value::Null
        } else if self.children.is_empty() {
            self.text.trim().into()
        } else {
            Value::Object(self.children)
        }
    }
}

fn xml(payload: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(payload).map_err(|_| "is no UTF-8")?;
    let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}'));
    // The document itself is the element around all others.
    let mut open = vec![Open::default()];
    let broken = |reader: &Reader<&[u8]>| format!("is no XML at byte {}", reader.error_position());
    loop {
        let event = reader.read_event().map_err(|_| broken(&reader))?;
        let closed = match &event {
            Event::Start(start) if open.len() > HOOK_DEPTH_MAX => {
                let name_bytes = start.len();
                return Err(format!("has more than {HOOK_DEPTH_MAX} levels ({name_bytes} bytes)"));
            }
            Event::Start(start) => {
                open.push(Open::new(start));
                None
            }
            Event::Empty(start) => Some(Open::new(start)),
            Event::End(_) => open.pop(),
            Event::Eof => break,
            Event::DocType(_) => return Err("has a document type, which is not read".into()),
            other => {
                if let Some(element) = open.last_mut() {
                    element.text.push_str(&characters(other).ok_or_else(|| broken(&reader))?);
                }
                None
            }
        };
        if let (Some(element), Some(parent)) = (closed, open.last_mut()) {
            let name = element.name.clone();
            put(&mut parent.children, &name, element.value());
        }
    }
    match (open.pop(), open.is_empty()) {
        (Some(document), true) if !document.children.is_empty() => {
            Ok(Value::Object(document.children))
        }
        _ => Err("is no whole XML document".into()),
    }
}

/// The text that an event stands for; none if it is an entity that is not known.
fn characters(event: &Event<'_>) -> Option<String> {
    match event {
        Event::Text(text) => Some(text.xml10_content().into_owned()),
        Event::CData(text) => Some(text.xml10_content().into_owned()),
        Event::GeneralRef(reference) => entity(reference).map(String::from),
        _ => Some(String::new()),
    }
}

fn entity(reference: &BytesRef<'_>) -> Option<char> {
    if reference.is_char_ref() {
        return reference.resolve_char_ref().ok().flatten();
    }
    match reference.as_ref() {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "apos" => Some('\''),
        "quot" => Some('"'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn xml_of(text: &str) -> Result<Value, String> {
        read(Form::Xml, text.as_bytes()).map_err(|error| error.problem)
    }

    #[test]
    fn xml_is_an_object_by_its_local_names() {
        let text = "\u{feff}<?xml version='1.0'?><!-- c --><s:E xmlns:s='u'><s:B a='1'>\n<x>1</x><y/>\
                    <x> &lt;2&#33;&amp;<![CDATA[<3>]]> </x><z i:nil='true'/></s:B></s:E>";
        let value = json!({"E": {"B": {"x": ["1", "<2!&<3>"], "y": "", "z": null}}});
        assert_eq!(xml_of(text), Ok(value));
    }

    #[test]
    fn xml_that_unfolds_never_ends_or_is_too_deep_is_refused() {
        for text in [
            "<!DOCTYPE a [<!ENTITY b 'bbbb'>]><a>&b;</a>",
            "<a>&b;</a>",
            "<a>",
            "<a></b>",
            "<a",
            "",
            "text",
            "<a/></a>",
        ] {
            assert!(xml_of(text).is_err(), "{text}");
        }
        let deep = |levels: usize| "<a>".repeat(levels) + &"</a>".repeat(levels);
        assert!(xml_of(&deep(HOOK_DEPTH_MAX)).is_ok());
        assert!(xml_of(&deep(HOOK_DEPTH_MAX + 1)).unwrap_err().contains("levels"));
        assert!(xml_of(&deep(100_000)).is_err());
    }

    #[test]
    fn a_form_is_an_object_of_texts() {
        let read = read(Form::Urlencoded, b"a=1&b=x%20y+z&a=%C3%A9&c").unwrap();
        assert_eq!(read, json!({"a": ["1", "é"], "b": "x y z", "c": ""}));
    }

    #[test]
    fn the_form_is_known_by_the_content_type_or_the_first_character() {
        for (content_type, payload, form) in [
            (Some("application/json"), "{}", Form::Json),
            (Some("text/plain"), " [1]", Form::Json),
            (Some("application/x-www-form-urlencoded"), "{}", Form::Json),
            (Some("application/x-www-form-urlencoded; charset=utf-8"), "a=1", Form::Urlencoded),
            (Some("text/xml"), "<a/>", Form::Xml),
            (Some("text/xml"), "\u{feff}<a/>", Form::Xml),
            (None, "<a/>", Form::Xml),
            (None, "a=1&b[c]=x%20y+z&d=\n", Form::Urlencoded),
            (Some("text/plain"), "lead_id=1", Form::Urlencoded),
            (None, "a = 1", Form::Json),
            (None, "\"a=1\"", Form::Json),
            (None, "true", Form::Json),
        ] {
            assert_eq!(Form::of(content_type, payload.as_bytes()), form, "{payload}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_payload_is_told_without_it() {
        let error = read(Form::Json, b"{\"email\": erika}").unwrap_err();
        assert_eq!(error.to_string(), "body: $: is no JSON at line 1, column 11");
    }
}
