//! What generators of clients need of a document beside its being valid.

use serde_json::Value;

use super::operations;
use crate::Client;

/// # Panics
/// Something would not compile, or not do what it seems to, in one of the languages that clients are generated in;
/// or something is not described.
pub fn suits_generated_clients(document: &Value) {
    let info = &document["info"];
    assert!(info["license"]["identifier"].is_string() && info["contact"]["name"].is_string(), "{info}");
    // Relative to the document itself: right behind a path prefix too.
    assert_eq!(document["servers"][0]["url"], ".");
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for (name, schema) in schemas {
        // Go names the constructor of X just so.
        let taken = name.strip_prefix("New").filter(|of| schemas.contains_key(*of));
        assert_eq!(taken, None, "{name}: the constructor of another");
        // A choice that stands twice is two types of a client.
        for (member, property) in schema["properties"].as_object().into_iter().flatten() {
            let named =
                schemas.iter().find(|(_, named)| property["enum"].is_array() && named["enum"] == property["enum"]);
            assert!(named.is_none(), "{name}.{member}: {named:?}");
        }
    }
    assert_eq!(schemas["Problem"]["properties"]["type"]["$ref"], "#/components/schemas/ProblemType");
    for operation in operations(document).into_values().flatten() {
        let id = &operation.entry["operationId"];
        assert!(operation.entry["description"].as_str().is_some_and(|text| !text.is_empty()), "{id}: not described");
        for parameter in operation.entry["parameters"].as_array().into_iter().flatten() {
            // Java and Go put an object's text into the URL.
            let schema = &parameter["schema"];
            assert!(schema.get("anyOf").or(schema.get("oneOf")).is_none(), "{id}: {parameter}");
        }
    }
}

/// Asks for a path without a route and for `thing`, a path whose thing is missing: a client can tell them apart, by
/// kinds that the document lists.
///
/// # Panics
/// It cannot.
pub async fn missing_things_and_paths_differ(client: &Client, document: &Value, thing: &str) {
    let kinds = document["components"]["schemas"]["ProblemType"]["enum"].as_array().unwrap();
    for (path, kind) in [("/no/such/path", "no-such-path"), (thing, "not-found")] {
        let answer = client.get(path).await;
        let told = &answer.body["type"];
        assert_eq!((answer.status, told.as_str().unwrap()), (404, &*format!("urn:summarisation:problem:{kind}")));
        assert!(kinds.contains(told), "{told}");
    }
}
