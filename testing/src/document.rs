//! The OpenAPI documents of the services: whether the checked-in ones are fresh, and what a test
//! generated from a document needs of it.

mod clients;

use std::collections::{BTreeMap, BTreeSet};

pub use clients::{missing_things_and_paths_differ, suits_generated_clients};
use serde_json::{Value, json};

use crate::{Client, Signer, root};

/// Compares the checked-in document `docs/NAME.json` with `made`; with `UPDATE=1` in the environment it writes it.
///
/// # Panics
/// They differ.
pub fn is_checked_in(name: &str, made: &str) {
    let file = root().join("docs").join(format!("{name}.json"));
    let made = format!("{made}\n");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, made).unwrap();
    } else {
        let kept = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(kept == made, "{} is not fresh: run make prepare", file.display());
    }
}

/// The JSON Schema of the message, as it is published.
#[must_use]
pub fn message_schema() -> Value {
    let text = std::fs::read_to_string(root().join("docs/message.schema.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Holds a real message against the AsyncAPI document of the service that sent it.
///
/// # Panics
/// The document says otherwise, or its own example does not fit.
pub fn fits_its_channel(document: &Value, payload: &Value, headers: &Value) {
    let messages = document["components"]["messages"].as_object().unwrap();
    let message = messages.values().next().unwrap();
    let example = &message["examples"][0];
    for (part, found) in
        [("payload", payload), ("headers", headers), ("payload", &example["payload"]), ("headers", &example["headers"])]
    {
        let mut schema = message[part].clone();
        schema["components"] = document["components"].clone();
        assert!(fits(&schema, found), "{part}: {found}");
    }
}

/// A schema of JSON Schema 2020-12, in which formats are checked too.
///
/// # Panics
/// It is none.
#[must_use]
pub fn fits(schema: &Value, value: &Value) -> bool {
    let options = jsonschema::options().with_draft(jsonschema::Draft::Draft202012).should_validate_formats(true);
    options.build(schema).unwrap().is_valid(value)
}

/// One operation of a document.
#[derive(Clone, Debug)]
pub struct Operation {
    pub method: reqwest::Method,
    /// With its parameters in braces.
    pub path: String,
    /// The scope that it asks for; none where it is open to everybody.
    pub scope: Option<String>,
    pub entry: Value,
}

/// Every operation of the document, by path.
#[must_use]
pub fn operations(document: &Value) -> BTreeMap<String, Vec<Operation>> {
    let paths = document["paths"].as_object().unwrap();
    let of_path = |path: &String, item: &Value| {
        let entries = item.as_object().unwrap().iter();
        entries
            .map(|(method, entry)| Operation {
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                scope: entry["security"][0]["bearer"][0].as_str().map(str::to_owned),
                entry: entry.clone(),
            })
            .collect()
    };
    paths.iter().map(|(path, item)| (path.clone(), of_path(path, item))).collect()
}

impl Operation {
    /// The path with the example of each parameter.
    #[must_use]
    pub fn example_path(&self) -> String {
        let parameters = self.entry["parameters"].as_array().into_iter().flatten();
        let in_path = parameters.filter(|parameter| parameter["in"] == "path");
        in_path.fold(self.path.clone(), |path, parameter| {
            let name = parameter["name"].as_str().unwrap();
            path.replace(&format!("{{{name}}}"), &example_of(&parameter["schema"]))
        })
    }
}

/// A text that fits the schema of a parameter.
fn example_of(schema: &Value) -> String {
    match (schema["format"].as_str(), &schema["examples"][0], &schema["anyOf"][0]) {
        (Some("uuid"), _, _) => "0192f0c2-3b1d-7c40-a1b2-c3d4e5f60718".into(),
        (Some("date"), _, _) => "2026-11-22".into(),
        (_, Value::String(example), _) => example.clone(),
        (_, _, first @ Value::Object(_)) => example_of(first),
        _ => "text".into(),
    }
}

/// Asks every path for every method that the document does not name: 405, with `Allow` naming those
/// it does.
///
/// # Panics
/// Another answer, or an operation that does not say who may use it.
pub async fn every_path_has_its_methods_only(client: &Client, document: &Value) {
    for operations in operations(document).into_values() {
        let allowed: BTreeSet<_> = operations.iter().map(|operation| operation.method.clone().to_string()).collect();
        let path = operations[0].example_path();
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"] {
            // HEAD is answered wherever GET is.
            if allowed.contains(if method == "HEAD" { "GET" } else { method }) {
                continue;
            }
            let answer = client.ask(method.parse().unwrap(), &path, &[], Vec::new()).await.unwrap();
            assert_eq!(answer.status, 405, "{method} {path}: {answer:?}");
            let told: BTreeSet<_> = answer.header("allow").split(", ").map(str::to_owned).collect();
            assert_eq!(told, allowed, "{method} {path}");
        }
        for operation in &operations {
            assert!(operation.scope.is_some(), "{operation:?} does not say who may use it");
        }
    }
}

/// Asks for every operation of the document without a token, with every scope but its own and with its
/// own alone: 401, 403, and neither.
///
/// # Panics
/// Another answer.
pub async fn every_operation_wants_its_scope(client: &Client, signer: &Signer, document: &Value) {
    let all: Vec<_> = operations(document).into_values().flatten().collect();
    let scopes: BTreeSet<_> = all.iter().map(|operation| operation.scope.as_deref().unwrap()).collect();
    for operation in &all {
        let (method, path) = (&operation.method, operation.example_path());
        let own = operation.scope.as_deref().unwrap();
        let others: Vec<_> = scopes.iter().copied().filter(|scope| *scope != own).collect();
        let status = async |client: Client| client.ask(method.clone(), &path, &[], Vec::new()).await.unwrap().status;
        let with = async |scope: Value| status(client.clone().bearing(signer.token(json!({"scope": scope})))).await;
        assert_eq!(status(client.clone()).await, 401, "{operation:?}");
        for lacking in
            [json!(others.join(" ")), json!(""), Value::Null, json!(own.to_uppercase()), json!(format!("{own}x"))]
        {
            assert_eq!(with(lacking.clone()).await, 403, "{method} {path} with {lacking}");
        }
        let answer = with(json!(format!("other {own}"))).await;
        assert!(![401, 403, 405, 500, 503].contains(&answer), "{method} {path}: {answer}");
    }
}

/// The documentation page, and everything it loads, comes from the service itself.
///
/// # Panics
/// Something of it is missing, or comes from elsewhere.
pub async fn the_page_is_complete(client: &Client) {
    assert_eq!(client.get("/docs").await.status, 200, "by a redirection");
    let page = client.text("/docs/").await;
    let loaded: Vec<_> =
        page.split(['"', '\'']).filter(|text| text.ends_with(".js") || text.ends_with(".css")).collect();
    assert!(loaded.len() >= 3 && !page.contains("src=\"http"), "{page}");
    for file in loaded {
        let path = format!("/docs/{}", file.trim_start_matches("./"));
        assert!(!client.text(&path).await.is_empty(), "{path}");
    }
    let initializer = client.text("/docs/swagger-initializer.js").await;
    assert!(
        initializer.contains("../openapi.json") && initializer.contains("\"validatorUrl\": \"none\""),
        "{initializer}"
    );
    let missing = client.get("/docs/missing.js").await;
    assert_eq!((missing.status, missing.header("content-type")), (404, "application/problem+json"));
}
