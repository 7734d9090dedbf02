//! Asks a service what its OpenAPI document says it answers.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    Answer, Client,
    document::{Operation, fits, operations},
};

/// A client who knows the document and holds every answer against it.
#[derive(Debug)]
pub struct Documented {
    client: Client,
    document: Value,
    asked: BTreeSet<String>,
}

impl Documented {
    /// # Panics
    /// An example of the document does not fit its own schema.
    #[must_use]
    pub fn new(client: Client, document: Value) -> Self {
        let new = Self { client, document, asked: BTreeSet::new() };
        for operation in operations(&new.document).into_values().flatten() {
            let responses = operation.entry["responses"].as_object().unwrap().values();
            for holder in responses.chain(operation.entry.get("requestBody")) {
                for content in new.resolved(holder)["content"].as_object().unwrap().values() {
                    new.check(&content["schema"], &content["example"]);
                }
            }
        }
        new
    }

    /// Sends the operation's own example, where it has a body, to `path`.
    ///
    /// # Panics
    /// The answer is not 2xx, or another than the document says: by its status, its type, its
    /// schema, or the members that the example has.
    pub async fn ask(&mut self, id: &str, path: &str) -> Answer {
        let operation = self.operation(id);
        let content = &operation.entry["requestBody"]["content"]["application/json"];
        let body = content.get("example").map(|example| example.to_string().into_bytes()).unwrap_or_default();
        let json = [("content-type", "application/json")];
        let answer = self.client.ask(operation.method.clone(), path, &json, body).await.unwrap();
        assert!((200..300).contains(&answer.status), "{id}: {answer:?}");
        let response = &operation.entry["responses"][answer.status.to_string()];
        let told = &response["content"][answer.header("content-type")];
        assert!(told.is_object(), "{id}: the document knows no {} {}", answer.status, answer.header("content-type"));
        self.check(&told["schema"], &answer.body);
        assert_eq!(shape(&answer.body), shape(&told["example"]), "{id}: the example looks like the answer");
        self.asked.insert(id.to_owned());
        answer
    }

    /// The same of an operation whose answer has no end: its head only.
    ///
    /// # Panics
    /// It is not what the document says.
    pub async fn ask_head(&mut self, id: &str, path: &str) {
        let answer = self.client.ask(reqwest::Method::HEAD, path, &[], Vec::new()).await.unwrap();
        let response = &self.operation(id).entry["responses"][answer.status.to_string()];
        let told = &response["content"][answer.header("content-type")];
        assert!(answer.status == 200 && told.is_object(), "{id}: {answer:?}");
        self.asked.insert(id.to_owned());
    }

    /// # Panics
    /// An operation was not asked.
    pub fn all_were_asked(&self) {
        let all = operations(&self.document).into_values().flatten();
        let all: BTreeSet<_> = all.map(|one| one.entry["operationId"].as_str().unwrap().to_owned()).collect();
        assert_eq!(self.asked, all);
    }

    /// Whether `value` fits the schema that the document has under `name`.
    #[must_use]
    pub fn fits(document: &Value, name: &str, value: &Value) -> bool {
        let reference = format!("#/components/schemas/{name}");
        fits(&json!({ "$ref": reference, "components": document["components"] }), value)
    }

    fn check(&self, schema: &Value, value: &Value) {
        let mut schema = schema.clone();
        schema["components"] = self.document["components"].clone();
        assert!(fits(&schema, value), "{value} does not fit {}", schema["$ref"]);
    }

    fn operation(&self, id: &str) -> Operation {
        let mut all = operations(&self.document).into_values().flatten();
        all.find(|one| one.entry["operationId"] == id).unwrap_or_else(|| panic!("there is no operation {id}"))
    }

    fn resolved<'a>(&'a self, holder: &'a Value) -> &'a Value {
        let pointer = holder["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
        pointer.map_or(holder, |pointer| self.document.pointer(pointer).unwrap())
    }
}

/// The members of objects, and of the first entry of lists.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
        Value::Array(entries) => entries.first().map(shape).into_iter().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Value::Null,
    }
}
