//! The recipes of docs/issuers.md: the settings there take the token there, and nothing that is close to it.

use serde_json::{Value, json};
use testing::Signer;

use super::{tests::bring, *};
use crate::runtime::config::Reader;

const RECIPES: &str = include_str!("../../../../docs/issuers.md");
const DEFAULTS: &str = include_str!("../../../../order-service/default.toml");

struct Recipe {
    name: &'static str,
    settings: &'static str,
    claims: Value,
}

fn recipes() -> Vec<Recipe> {
    let block = |section: &'static str, kind: &str| {
        let begin = section.split_once(&format!("```{kind}\n"))?.1;
        Some(begin.split_once("```")?.0)
    };
    let of_section = |section: &'static str| {
        let settings = block(section, "toml")?;
        let claims = serde_json::from_str(block(section, "json")?).unwrap();
        Some(Recipe { name: section.lines().next()?, settings, claims })
    };
    RECIPES.split("\n## ").filter_map(of_section).collect()
}

impl Recipe {
    /// With the key of `signer` in place of the issuer's own.
    fn authentication(&self, signer: &Signer, more: &str) -> Authentication {
        let own = |line: &&str| !line.starts_with("jwks_url");
        let settings: Vec<_> = self.settings.lines().filter(own).collect();
        assert_eq!(settings.len() + 1, self.settings.lines().count(), "{}: one jwks_url", self.name);
        let key = format!("public_key_file = '{}'\n{more}\n", signer.public_key_file().display());
        let file = signer.home().join("settings.toml");
        std::fs::write(&file, settings.join("\n") + "\n" + &key).unwrap();
        let mut reader = Reader::new(DEFAULTS, "RECIPE", Some(&file)).unwrap();
        let settings = Settings::read(&mut reader);
        assert_eq!(mistakes(reader), Vec::<String>::new(), "{}", self.name);
        Authentication::new(settings).unwrap().0
    }
}

/// But for a database that the environment may name.
fn mistakes(reader: Reader) -> Vec<String> {
    let mut all = reader.finish().err().unwrap_or_default();
    all.retain(|mistake| !mistake.starts_with("database."));
    all
}

fn with(claims: &Value, name: &str, value: Value) -> Value {
    let mut claims = claims.clone();
    claims[name] = value;
    claims
}

fn signed(signer: &Signer, claims: &Value) -> String {
    signer.sign(&json!({"alg": "RS256", "typ": "JWT", "kid": signer.kid}).to_string(), claims.to_string())
}

#[tokio::test]
async fn the_token_of_each_recipe_is_good_for_what_it_says_and_no_more() {
    let signer = Signer::rs256("main");
    let names: Vec<_> = recipes().iter().map(|recipe| recipe.name).collect();
    assert_eq!(names, ["Keycloak", "Entra", "Okta", "Auth0", "Cognito"]);
    for recipe in recipes() {
        let authentication = recipe.authentication(&signer, "");
        let caller = bring(&authentication, &signed(&signer, &recipe.claims)).await.expect(recipe.name);
        for (scope, may) in [("orders:read", true), ("orders:write", true), ("operations", false), ("openid", false)] {
            let openid_is_harmless = scope == "openid";
            assert!(caller.may(scope) == may || openid_is_harmless, "{}: {scope}", recipe.name);
        }
        assert_eq!(caller.customer().unwrap().unwrap().as_str(), "C-1001", "{}", recipe.name);
        let wrong = [("iss", json!("https://other.example")), ("aud", json!("other")), ("exp", json!(1_000_000_000))];
        for (name, value) in wrong.into_iter().chain([("client_id", json!("other"))]) {
            let is_taken = bring(&authentication, &signed(&signer, &with(&recipe.claims, name, value))).await.is_ok();
            // Only where there is no audience does the client matter.
            let matters = name != "client_id" || recipe.claims.get("aud").is_none();
            assert_eq!(is_taken, !matters, "{}: {name}", recipe.name);
        }
    }
}

#[tokio::test]
async fn a_customer_that_is_misspelt_opens_nothing_where_all_customers_need_a_scope() {
    let signer = Signer::rs256("main");
    for recipe in recipes() {
        let mut misspelt = recipe.claims.clone();
        for name in ["customerRef", "https://shop.example/customerRef"] {
            misspelt.as_object_mut().unwrap().remove(name);
        }
        misspelt["customer_ref"] = "C-1001".into();
        let token = signed(&signer, &misspelt);
        let open = bring(&recipe.authentication(&signer, ""), &token).await.unwrap();
        assert_eq!(open.customer().unwrap(), None, "{}", recipe.name);
        let closed = recipe.authentication(&signer, "unrestricted_scope = 'orders:all'");
        let refused = bring(&closed, &token).await.unwrap().customer().unwrap_err();
        assert_eq!(refused.status(), 403, "{}", recipe.name);
        let known = bring(&closed, &signed(&signer, &recipe.claims)).await.unwrap();
        assert!(known.customer().unwrap().is_some(), "{}", recipe.name);
        let enough = recipe.authentication(&signer, "unrestricted_scope = 'orders:read'");
        assert_eq!(bring(&enough, &token).await.unwrap().customer().unwrap(), None, "{}", recipe.name);
    }
}

#[tokio::test]
async fn a_prefix_and_the_names_of_others_count_for_nothing() {
    let signer = Signer::rs256("main");
    let cognito = recipes().pop().unwrap();
    let authentication =
        cognito.authentication(&signer, "role_scopes = 'staff=operations'\nscope_claims = 'scope,cognito:groups'");
    for (scope, groups, may) in [
        ("operations", json!([]), false),
        ("other.example/operations", json!([]), false),
        ("orders.example/", json!([]), false),
        ("orders.example/operations", json!([]), true),
        ("", json!(["staff"]), true),
        ("", json!(["Staff", "orders.example/staff"]), false),
    ] {
        let claims = with(&with(&cognito.claims, "scope", json!(scope)), "cognito:groups", groups.clone());
        let caller = bring(&authentication, &signed(&signer, &claims)).await.unwrap();
        assert_eq!(caller.may("operations"), may, "{scope} {groups}");
        assert!(!caller.may(""), "{scope} {groups}");
    }
}

#[test]
fn a_wrong_mapping_is_a_mistake_with_its_name() {
    let signer = Signer::rs256("main");
    let file = signer.home().join("settings.toml");
    let settings = "[auth]\nmode = 'disabled'\nrole_scopes = 'clerk'\nscope_prefix = 'a b'\njwks_max_stale = '1s'\n";
    std::fs::write(&file, settings).unwrap();
    let mut reader = Reader::new(DEFAULTS, "RECIPE", Some(&file)).unwrap();
    drop(Settings::read(&mut reader));
    let mistakes = mistakes(reader);
    let names: Vec<_> = mistakes.iter().map(|mistake| mistake.split(": ").next().unwrap()).collect();
    assert_eq!(names, ["auth.jwks_max_stale", "auth.role_scopes", "auth.scope_prefix"]);
}
