use proptest::prelude::*;
use time::{format_description::well_known::Rfc3339, macros::datetime};

use super::*;

const GOOD: &str = r#"{"messageRef": "0192f0c2-0000-7000-8000-000000000001", "activityTypeCode": "ORDER_CREATED",
    "activityAt": "2026-11-22T11:59:59.123456Z", "orderRef": "OS000042-ORD", "orderVersion": 1}"#;

fn reason(value: &str) -> Reason {
    parse(Some(value.as_bytes()), None).unwrap_err().reason
}

fn with(field: &str, value: &str) -> String {
    let mut message: serde_json::Value = serde_json::from_str(GOOD).unwrap();
    message[field] = serde_json::from_str(value).unwrap();
    message.to_string()
}

#[test]
fn a_message_is_read() {
    let activity = parse(Some(GOOD.as_bytes()), Some(b"summarisation.ORDER_CREATED.v1")).unwrap();
    assert_eq!(activity.code.as_str(), "ORDER_CREATED");
    assert_eq!(activity.at, datetime!(2026-11-22 11:59:59.123456 UTC));
    let upper = GOOD.replace("0192f0c2", "0192F0C2");
    assert_eq!(parse(Some(upper.as_bytes()), None).unwrap().message_ref, activity.message_ref);
}

#[test]
fn what_is_no_json_is_told_from_json_that_does_not_fit() {
    let deep = "[".repeat(100_000);
    for text in ["", " ", "{", "not json", r#"{"messageRef": 5, "activityAt": }"#, &deep, r#"{"messageRef": "\ud800"}"#]
    {
        assert_eq!(reason(text), Reason::NotJson, "{text:.40}");
    }
    let twice = GOOD.replace("\"orderRef\"", "\"messageRef\"");
    let list = r#"["0192f0c2-0000-7000-8000-000000000001", "ORDER_CREATED", "2026-11-22T11:59:59Z"]"#;
    for text in ["5", "null", "[]", "{}", "\"text\"", &twice, list] {
        assert_eq!(reason(text), Reason::BadField, "{text:.40}");
    }
    let hidden = b"{\"other\": \"\xff\"}";
    assert_eq!(parse(Some(hidden), None).unwrap_err().reason, Reason::NotJson);
    assert_eq!(parse(None, None).unwrap_err().reason, Reason::NoValue);
}

#[test]
fn a_cloud_event_in_structured_mode_is_read() {
    let event = |data: &str, kind: &str| {
        format!(
            r#"{{"specversion": "1.0", "id": "1", "source": "/other", "type": "{kind}", "datacontenttype": "application/json",
                "data": {data}}}"#
        )
    };
    let read = parse(Some(event(GOOD, "summarisation.ORDER_CREATED.v1").as_bytes()), None).unwrap();
    assert_eq!(read, parse(Some(GOOD.as_bytes()), None).unwrap());
    assert_eq!(reason(&event(GOOD, "summarisation.ORDER_CREATED.v2")), Reason::UnknownVersion);
    for data in ["5", "[]", "null", "{}", "\"text\"", &GOOD.replace("\"orderRef\"", "\"messageRef\"")] {
        assert_eq!(reason(&event(data, "a.v1")), Reason::BadField, "{data}");
    }
    // What else a message holds is its sender's business.
    let other =
        GOOD.replace("\"orderRef\"", r#""specversion": "1.0", "data": {"messageRef": 1, "messageRef": 2}, "orderRef""#);
    assert!(parse(Some(other.as_bytes()), None).is_ok());
}

#[test]
fn a_deep_value_of_an_ignored_field_is_skipped() {
    let deep = format!(r#"{{"other": {}{}, {}"#, "[".repeat(100_000), "]".repeat(100_000), &GOOD[1..]);
    assert!(parse(Some(deep.as_bytes()), None).is_ok());
}

#[test]
fn a_wrong_field_is_named() {
    for field in ["messageRef", "activityTypeCode", "activityAt"] {
        for value in
            ["null", "5", "1.5", "true", "[]", r#"{"a": [1]}"#, r#""""#, r#""canary""#, r#""ORDER\u0000CREATED""#]
        {
            let told = parse(Some(with(field, value).as_bytes()), None).unwrap_err();
            assert_eq!(told.reason, Reason::BadField, "{field} {value}");
            assert!(told.detail.contains(field) && !told.detail.contains("canary"), "{}", told.detail);
        }
    }
    let nil = Uuid::nil().to_string();
    for no_uuid in ["0192f0c2000070008000000000000001", "{0192f0c2-0000-7000-8000-000000000001}", &nil] {
        assert_eq!(reason(&with("messageRef", &format!("{no_uuid:?}"))), Reason::BadField);
    }
    for no_time in [
        "2026-02-30T00:00:00Z",
        "2026-11-22",
        "2026-11-22T25:00:00Z",
        "2026-11-22T12:00:00",
        "2026-11-22_12:00:00Z",
        "2026-11-22 12:00:00Z",
    ] {
        assert_eq!(reason(&with("activityAt", &format!("{no_time:?}"))), Reason::BadField);
    }
}

#[test]
fn a_number_that_no_type_holds_is_a_wrong_field_or_nobody_s_business() {
    for number in ["1e400", "9223372036854775808", &"9".repeat(400)] {
        let with_field = |field: &str| GOOD.replacen('{', &format!("{{\"{field}\": {number}, "), 1);
        assert!(parse(Some(with_field("other").as_bytes()), None).is_ok(), "{number}");
        let wrong = with_field("activityAt").replace(r#""activityAt": "2026-11-22T11:59:59.123456Z""#, r#""at": 1"#);
        let told = parse(Some(wrong.as_bytes()), None).unwrap_err();
        assert_eq!((told.reason, told.message_ref.is_some()), (Reason::BadField, true), "{number}");
    }
}

#[test]
fn what_could_be_read_of_a_message_that_cannot_be_counted_is_told() {
    let wrong_time = parse(Some(with("activityAt", "5").as_bytes()), None).unwrap_err();
    let wrong_code = parse(Some(with("activityTypeCode", "5").as_bytes()), None).unwrap_err();
    let of_another_version = parse(Some(GOOD.as_bytes()), Some(b"x.v2")).unwrap_err();
    let good = parse(Some(GOOD.as_bytes()), None).unwrap();
    for (told, code) in [(wrong_time, true), (wrong_code, false), (of_another_version, true)] {
        assert_eq!((told.message_ref, told.code.is_some()), (Some(good.message_ref), code), "{told:?}");
    }
}

#[test]
fn another_version_is_told_and_the_type_kept() {
    for header in [&b"summarisation.ORDER_CREATED.v2"[..], b"summarisation.ORDER_CREATED.v11", b"", b"\xff.v", b"v1"] {
        let told = parse(Some(GOOD.as_bytes()), Some(header)).unwrap_err();
        assert_eq!((told.reason, told.code.unwrap().as_str()), (Reason::UnknownVersion, "ORDER_CREATED"));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(value in proptest::collection::vec(any::<u8>(), 0..300), header: Option<Vec<u8>>) {
        drop(parse(Some(&value), header.as_deref()));
    }

    #[test]
    fn what_was_written_is_read(id in 1u128.., code in "[A-Z][A-Z0-9_]{0,63}", second in 946_684_800i64..1_790_000_000, other: String) {
        let at = OffsetDateTime::from_unix_timestamp(second).unwrap();
        let message = serde_json::json!({"messageRef": Uuid::from_u128(id), "activityTypeCode": code,
            "activityAt": at.format(&Rfc3339).unwrap(), "other": other});
        let activity = parse(Some(message.to_string().as_bytes()), None).unwrap();
        prop_assert_eq!((activity.message_ref, activity.code.as_str(), activity.at), (Uuid::from_u128(id), code.as_str(), at));
    }

    #[test]
    fn cut_anywhere_it_is_not_json(end in 0..GOOD.len() - 1) {
        prop_assert_eq!(reason(&GOOD[..end]), Reason::NotJson);
    }
}
