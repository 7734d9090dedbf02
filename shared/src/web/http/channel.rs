//! The AsyncAPI document of a service: the one channel of messages that it sends to or receives from. Payloads are
//! described by the types that the code writes or reads, as bodies are in the OpenAPI document.

use serde_json::{Map, Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

/// What an installation calls the topic where nothing else is set.
const TOPIC: &str = "summarisation.order";
/// Who an installation is run by is not known here.
pub(super) const CONTACT: &str = "The team that runs it";
const KAFKA_BINDING: &str = "0.5.0";

/// Which way messages go, as the service sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Send,
    Receive,
}

/// A header of a message.
#[derive(Clone, Debug)]
pub struct Header {
    pub name: &'static str,
    pub description: &'static str,
    pub schema: Value,
    pub required: bool,
}

/// What a service says about its messages.
#[derive(Clone, Debug)]
pub struct Channel {
    pub direction: Direction,
    /// How generated code names the operation.
    pub operation: &'static str,
    pub summary: &'static str,
    pub description: &'static str,
    pub key: &'static str,
    pub headers: Vec<Header>,
    /// Whether a message may have headers beside these.
    pub other_headers: bool,
    /// A message, headers and payload.
    pub example: (Value, Value),
    /// The schema of the value, by name; set by [`Channel::of`].
    pub payload: String,
    /// That schema, and those it is made of.
    pub schemas: Vec<(String, RefOr<Schema>)>,
}

impl Channel {
    /// The payload is a `T`, in JSON. What else there is to say is filled in by the caller.
    #[must_use]
    pub fn of<T: ToSchema>(direction: Direction) -> Self {
        let mut schemas = vec![(T::name().into_owned(), <T as PartialSchema>::schema())];
        T::schemas(&mut schemas);
        Self {
            direction,
            operation: "",
            summary: "",
            description: "",
            key: "",
            headers: Vec::new(),
            other_headers: false,
            example: (Value::Null, Value::Null),
            payload: T::name().into_owned(),
            schemas,
        }
    }

    /// AsyncAPI 3.0. Brokers are not in it: it is told without a token.
    #[must_use]
    pub fn document(&self, title: &str) -> Value {
        let message = &self.payload;
        let reference = format!("#/channels/activities/messages/{message}");
        json!({
            "asyncapi": "3.0.0",
            "id": format!("urn:summarisation:{title}"),
            "info": {
                "title": title,
                "version": env!("CARGO_PKG_VERSION"),
                "description": self.description,
                "contact": { "name": CONTACT },
                "license": { "name": env!("CARGO_PKG_LICENSE") },
                "tags": [{ "name": "activities", "description": "What happened." }],
            },
            "defaultContentType": "application/json",
            "channels": { "activities": {
                "address": TOPIC,
                "description": "A topic of Kafka. An installation may give it another name.",
                "messages": { message: { "$ref": format!("#/components/messages/{message}") } },
                "bindings": { "kafka": { "topic": TOPIC, "bindingVersion": KAFKA_BINDING } },
            } },
            "operations": { self.operation: {
                "action": match self.direction { Direction::Send => "send", Direction::Receive => "receive" },
                "summary": self.summary,
                "channel": { "$ref": "#/channels/activities" },
                "messages": [{ "$ref": reference }],
            } },
            "components": {
                "messages": { message: {
                    "name": message,
                    "title": self.summary,
                    "summary": "CloudEvents 1.0 in binary mode: the attributes are headers, the value is the data.",
                    "contentType": "application/json",
                    "headers": self.headers(),
                    "payload": { "$ref": format!("#/components/schemas/{message}") },
                    "bindings": { "kafka": {
                        "key": { "type": "string", "description": self.key },
                        "bindingVersion": KAFKA_BINDING,
                    } },
                    "examples": [{ "name": "example", "headers": self.example.0, "payload": self.example.1 }],
                } },
                "schemas": self.schemas(),
            },
        })
    }

    /// The schema of the payload alone, in JSON Schema 2020-12.
    #[must_use]
    pub fn json_schema(&self, id: &str, title: &str) -> Value {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": id,
            "title": title,
            "description": self.description,
            "$ref": format!("#/$defs/{}", self.payload),
            "$defs": self.schemas(),
            "examples": [self.example.1],
        });
        // The same schemas, where JSON Schema keeps them.
        let text = schema.to_string().replace("#/components/schemas/", "#/$defs/");
        serde_json::from_str(&text).expect("the text was JSON, and stays so")
    }

    fn schemas(&self) -> Map<String, Value> {
        self.schemas.iter().map(|(name, schema)| (name.clone(), json!(schema))).collect()
    }

    fn headers(&self) -> Value {
        let told = |header: &Header| {
            let mut schema = header.schema.clone();
            schema["type"] = json!("string");
            schema["description"] = json!(header.description);
            (header.name.to_owned(), schema)
        };
        let required: Vec<_> = self.headers.iter().filter(|header| header.required).map(|header| header.name).collect();
        json!({
            "type": "object",
            "required": required,
            "properties": self.headers.iter().map(told).collect::<Map<_, _>>(),
            "additionalProperties": self.other_headers,
        })
    }
}
