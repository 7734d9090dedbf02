//! The body of `POST /orders`: whatever bytes come, they are an order that keeps every rule, or a refusal
//! that names places and rules.
#![no_main]

use libfuzzer_sys::fuzz_target;
use order_service::order::{NewOrder, NewOrderBody};
use shared::web::json::{self, Object};

fuzz_target!(|bytes: &[u8]| {
    let Ok(Object(body)) = json::parse::<Object<NewOrderBody>>(bytes) else { return };
    match NewOrder::parse(&body) {
        Ok(order) => {
            let customer_ref = order.customer_ref().as_str();
            assert_eq!(customer_ref, customer_ref.trim());
            assert!((1..=64).contains(&customer_ref.chars().count()) && !customer_ref.contains(char::is_control));
            assert!((1..=200).contains(&order.items().len()));
            assert!(order.items().iter().all(|item| (1..=1_000_000).contains(&item.quantity)));
        }
        Err(violations) => {
            assert!(!violations.is_empty());
            assert!(violations.iter().all(|one| one.pointer.starts_with('/') && one.detail.starts_with("Th")));
        }
    }
});
