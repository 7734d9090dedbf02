//! What a token is good for besides its scopes.

use reqwest::Method;
use serde_json::json;
use testing::{Signer, order_body};

use crate::world::{World, seconds};

#[tokio::test]
async fn a_403_names_the_scope_that_is_missing() {
    let world = World::new().await;
    let signer = Signer::es256("main");
    let service = world.setup().trusting(&signer).start().await;
    let client = world.client(&service).bearing(signer.token(json!({"scope": "orders:read"})));
    for (method, path, scope) in [
        (Method::POST, "/orders", "orders:write"),
        (Method::POST, "/orders/OS000001-ORD/complete", "operations"),
        (Method::GET, "/admin/messages", "operations"),
    ] {
        let answer = client.ask(method, path, &[], Vec::new()).await.unwrap();
        let told = format!(r#"Bearer error="insufficient_scope", scope="{scope}""#);
        assert_eq!((answer.status, answer.header("www-authenticate")), (403, told.as_str()), "{path}");
    }
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn a_customer_is_no_operator_whatever_its_scopes() {
    let world = World::new().await;
    let signer = Signer::es256("main");
    let service = world.setup().trusting(&signer).start().await;
    let client = world.client(&service).bearing(signer.token(json!({"customerRef": "C-1"})));
    for path in ["/admin/messages", "/admin/messages?state=published"] {
        assert_eq!(client.get(path).await.status, 403, "{path}");
    }
    for path in ["/admin/messages/retry", "/admin/messages/0192f0c1-7a5e-7000-8000-000000000001/retry"] {
        assert_eq!(client.ask(Method::POST, path, &[], Vec::new()).await.unwrap().status, 403, "{path}");
    }
    assert_eq!(client.get("/orders").await.status, 200);
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn where_all_customers_need_a_scope_a_token_without_one_sees_and_does_nothing() {
    let world = World::new().await;
    let signer = Signer::es256("main");
    let setup = world.setup().trusting(&signer);
    let setup = setup.set("auth.unrestricted_scope", "orders:all").set("auth.customer_claim", "shop.customer");
    let service = setup.start().await;
    let as_who = |claims| world.client(&service).bearing(signer.token(claims));
    let all = as_who(json!({"scope": ["orders:read", "orders:write", "orders:all", "operations"]}));
    let own = as_who(json!({"shop": {"customer": "C-1"}}));
    let order = own.post("/orders", &order_body("C-1")).await.unwrap();
    assert_eq!(order.status, 201);
    let order_ref = order.body["orderRef"].as_str().unwrap();
    world.history.add(order_ref, "C-1");
    // The claim of the default is not the one that counts here.
    let misspelt = as_who(json!({"customerRef": "C-2"}));
    let path = format!("/orders/{order_ref}");
    let lacking = r#"Bearer error="insufficient_scope", scope="orders:all""#;
    for path in ["/orders", "/orders/customer/C-1", &path] {
        let refused = misspelt.get(path).await;
        assert_eq!((refused.status, refused.header("www-authenticate")), (403, lacking), "{path}");
        assert_eq!(own.get(path).await.status, 200, "{path}");
        assert_eq!(all.get(path).await.status, 200, "{path}");
    }
    assert_eq!(misspelt.post("/orders", &order_body("C-1")).await.unwrap().status, 403);
    for change in ["cancel", "complete"] {
        let answer = misspelt.ask(Method::POST, &format!("{path}/{change}"), &[], Vec::new()).await.unwrap();
        assert_eq!((answer.status, answer.header("www-authenticate")), (403, lacking), "{change}");
    }
    let wrong = setup.set("auth.unrestricted_scope", "orders:\"all\"").run(&["config"]).await;
    assert!(String::from_utf8(wrong.stderr).unwrap().starts_with("auth.unrestricted_scope: "));
    assert_eq!(misspelt.get("/admin/messages").await.status, 200, "messages are of no customer");
    assert_eq!(all.get(&path).await.body["statusName"], "New");
    world.at_rest(seconds(20)).await;
    world.judge().await;
}
