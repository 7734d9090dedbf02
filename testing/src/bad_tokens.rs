use base64::{Engine, prelude::*};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::{AUDIENCE, ISSUER, Signer};

/// Requests that must all be refused alike by whoever trusts `signer` alone, which has a key of RSA:
/// what each is, and its Authorization headers.
#[must_use]
pub fn bad_authorizations(signer: &Signer) -> Vec<(String, Vec<String>)> {
    let mut all: Vec<(String, Vec<String>)> = Vec::new();
    let good = signer.token(json!({}));
    for (name, headers) in [
        ("no header", vec![]),
        ("an empty header", vec![String::new()]),
        ("the scheme only", vec!["Bearer".into()]),
        ("the scheme and a blank", vec!["Bearer ".into()]),
        ("no scheme", vec![good.clone()]),
        ("another scheme", vec!["Basic dTpw".into()]),
        ("a token under another scheme", vec![format!("Basic {good}")]),
        ("the token twice in a header", vec![format!("Bearer {good} {good}")]),
        ("a list of tokens", vec![format!("Bearer {good}, Bearer {good}")]),
        ("a quoted token", vec![format!("Bearer \"{good}\"")]),
        ("two headers", vec![format!("Bearer {good}"), format!("Bearer {good}")]),
        ("two headers, one empty", vec![format!("Bearer {good}"), String::new()]),
        ("two headers, one of another scheme", vec!["Basic dTpw".into(), format!("Bearer {good}")]),
    ] {
        all.push((name.into(), headers));
    }
    let tokens = shapes(signer, &good).into_iter().chain(headers(signer)).chain(claims(signer));
    all.extend(tokens.map(|(name, token)| (name, vec![format!("Bearer {token}")])));
    all
}

fn b64(raw: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(raw)
}

fn named(name: &str, token: impl Into<String>) -> (String, String) {
    (name.into(), token.into())
}

/// What has not even the shape of a token, or was changed after it was signed.
fn shapes(signer: &Signer, good: &str) -> Vec<(String, String)> {
    let parts: Vec<_> = good.split('.').collect();
    let [head, claims, signature] = parts[..] else { panic!("a token has three parts") };
    let other = signer.token(json!({"sub": "admin"}));
    let other_claims = other.split('.').nth(1).unwrap();
    let twice = |payload: &str| signer.sign(r#"{"alg":"RS256"}"#, payload);
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let rest = format!(r#""iss":"{ISSUER}","aud":"{AUDIENCE}","exp":{}"#, now + 3600);
    vec![
        named("a word", "nonsense"),
        named("dots", ".."),
        named("letters", "a.b.c"),
        named("one part", head),
        named("two parts", format!("{head}.{claims}")),
        named("four parts", format!("{good}.{signature}")),
        named("five parts, as if encrypted", format!("{good}.{signature}.{signature}")),
        named("no signature", format!("{head}.{claims}.")),
        named("no claims", format!("{head}..{signature}")),
        named("no header", format!(".{claims}.{signature}")),
        named("the signature of other claims", format!("{head}.{other_claims}.{signature}")),
        named("a cut signature", &good[..good.len() - 4]),
        named("a longer signature", format!("{good}AAAA")),
        named("a padded signature", format!("{good}==")),
        named("a signature in the other alphabet", format!("{head}.{claims}.{}", "+/+/".repeat(86))),
        named("a signature of zeros", format!("{head}.{claims}.{}", b64([0; 256]))),
        named("a blank inside", format!("{head}. {claims}.{signature}")),
        named("percent encoding", good.replace('.', "%2E")),
        named("12 KB", signer.token(json!({"noise": "x".repeat(8_500)}))),
        named("9 KB", signer.token(json!({"noise": "x".repeat(7_000)}))),
        named("a list for claims", signer.sign(r#"{"alg":"RS256"}"#, format!(r#"["{ISSUER}","{AUDIENCE}","x"]"#))),
        named("null for claims", twice("null")),
        named("text for claims", twice("\"text\"")),
        named("half an object for claims", twice("{")),
        named("two objects for claims", twice(&format!("{{{rest},\"sub\":\"x\"}}{{}}"))),
        named("no UTF-8 for claims", signer.sign(r#"{"alg":"RS256"}"#, b"{\"sub\":\"\xff\"}")),
        named("nested lists", twice(&format!("{{{rest},\"sub\":\"x\",\"deep\":{}}}", "[".repeat(2000)))),
        named("deeply nested lists", {
            let deep = "[".repeat(1000) + &"]".repeat(1000);
            twice(&format!("{{{rest},\"sub\":\"x\",\"deep\":{deep}}}"))
        }),
        named("sub twice", twice(&format!(r#"{{{rest},"sub":"a","sub":"b"}}"#))),
        named("sub twice, once escaped", twice(&format!(r#"{{{rest},"sub":"a","s\u0075b":"b"}}"#))),
        named("an unknown claim twice", twice(&format!(r#"{{{rest},"sub":"a","x":1,"x":1}}"#))),
        named("exp twice", twice(&format!(r#"{{"exp":1,{rest},"sub":"a"}}"#))),
        named("scope twice", twice(&format!(r#"{{{rest},"sub":"a","scope":"","scope":"operations"}}"#))),
        named("customerRef twice", twice(&format!(r#"{{{rest},"sub":"a","customerRef":"A","customerRef":"B"}}"#))),
    ]
}

/// Good claims under a header that must not be believed.
fn headers(signer: &Signer) -> Vec<(String, String)> {
    let stranger = Signer::rs256(&signer.kid);
    let good = signer.token(json!({}));
    let claims = good.split('.').nth(1).unwrap();
    let payload = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    let hmac = r#"{"alg":"HS256","typ":"JWT"}"#;
    let mut all = vec![
        named("a stranger's key", stranger.token(json!({}))),
        named("a stranger's key in the header", stranger.token_with(json!({"jwk": stranger.jwk()}), json!({}))),
        named("a stranger's keys at jku", {
            stranger.token_with(json!({"jku": "http://127.0.0.1:9/keys", "x5u": "http://127.0.0.1:9/c"}), json!({}))
        }),
        named("a stranger's certificate", stranger.token_with(json!({"x5c": ["MIIB"]}), json!({}))),
        named("a key of another kind", Signer::es256(&signer.kid).token(json!({}))),
        named("HMAC with the public key", Signer::sign_with_secret(hmac, &payload, signer.public_key().as_bytes())),
        named("HMAC with the public key's bytes", {
            let text: String = signer.public_key().lines().filter(|line| !line.starts_with('-')).collect();
            Signer::sign_with_secret(hmac, &payload, &BASE64_STANDARD.decode(text).unwrap())
        }),
        named("HMAC with a word", Signer::sign_with_secret(hmac, &payload, b"secret")),
        named("HMAC with nothing", Signer::sign_with_secret(hmac, &payload, b"")),
        named("HMAC called RS256", Signer::sign_with_secret(r#"{"alg":"RS256"}"#, &payload, b"secret")),
        named("a list for a header", signer.sign(r#"["RS256"]"#, &payload)),
        named("text for a header", signer.sign("\"RS256\"", &payload)),
        named("no alg", signer.token_with(json!({"alg": null}), json!({}))),
        named("alg twice", signer.sign(r#"{"alg":"RS256","alg":"RS256"}"#, &payload)),
        named("kid twice", signer.sign(r#"{"alg":"RS256","kid":"a","kid":"a"}"#, &payload)),
        named("kid null", signer.sign(r#"{"alg":"RS256","kid":null}"#, &payload)),
    ];
    for none in ["none", "None", "NONE", "nOnE", ""] {
        let head = b64(json!({"alg": none, "typ": "JWT"}).to_string());
        all.push((format!("alg {none:?}, unsigned"), format!("{head}.{claims}.")));
        all.push((format!("alg {none:?}, signed"), signer.token_with(json!({"alg": none}), json!({}))));
    }
    for alg in
        [json!("RS512"), json!("PS256"), json!("ES256"), json!("EdDSA"), json!("HS256"), json!("rs256"), json!(5)]
    {
        all.push((format!("alg {alg}"), signer.token_with(json!({"alg": alg}), json!({}))));
    }
    for kid in [json!(5), json!([]), json!({})] {
        all.push((format!("kid {kid}"), signer.token_with(json!({"kid": kid}), json!({}))));
    }
    // With the key of a stranger these would be good, had the service any use for them.
    for kid in ["../../dev/null", "/etc/passwd", "http://127.0.0.1:9/keys", "' OR 1=1 --", "$(id)", "\u{0}", "*"] {
        all.push((format!("kid {kid:?}"), stranger.token_with(json!({"kid": kid}), json!({}))));
    }
    for (name, header) in [
        ("crit", json!({"crit": ["exp"]})),
        ("an empty crit", json!({"crit": []})),
        ("b64", json!({"crit": ["b64"], "b64": false})),
        ("another typ", json!({"typ": "secevent+jwt"})),
        ("an identity's typ", json!({"typ": "logout+jwt"})),
        ("typ as a number", json!({"typ": 5})),
    ] {
        all.push((name.into(), signer.token_with(header, json!({}))));
    }
    all
}

/// Claims that are missing, wrong or of the wrong type, signed well.
fn claims(signer: &Signer) -> Vec<(String, String)> {
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let missing = Value::Null;
    let wrong = [
        ("exp", missing.clone()),
        ("exp", json!(now - 3600)),
        ("exp", json!(now as f64 - 3600.5)),
        ("exp", json!((now + 3600).to_string())),
        ("exp", json!("2999-01-01T00:00:00Z")),
        ("exp", json!(true)),
        ("exp", json!([now + 3600])),
        ("exp", json!({"at": now + 3600})),
        ("exp", json!(0)),
        ("exp", json!(-1)),
        ("exp", json!(1e300)),
        ("exp", json!(i64::MAX)),
        ("exp", json!(u64::MAX)),
        ("nbf", json!(now + 3600)),
        ("nbf", json!("soon")),
        ("nbf", json!(false)),
        ("nbf", json!(-1)),
        ("nbf", json!(u64::MAX)),
        ("iss", missing.clone()),
        ("iss", json!(format!("{ISSUER}/"))),
        ("iss", json!(ISSUER.to_uppercase())),
        ("iss", json!(format!(" {ISSUER}"))),
        ("iss", json!(5)),
        ("iss", json!([ISSUER])),
        ("aud", missing.clone()),
        ("aud", json!("other")),
        ("aud", json!("")),
        ("aud", json!([])),
        ("aud", json!(["other", format!("{AUDIENCE}.example")])),
        ("aud", json!([AUDIENCE, 5])),
        ("aud", json!([[AUDIENCE]])),
        ("aud", json!(5)),
        ("aud", json!({"aud": AUDIENCE})),
        ("sub", missing.clone()),
        ("sub", json!("")),
        ("sub", json!(5)),
        ("sub", json!(["tester"])),
        ("sub", json!("x".repeat(256))),
        ("sub", json!("a\u{0}b")),
        ("sub", json!("a\nb")),
        ("scope", json!(["orders:read", 5])),
        ("scope", json!([["operations"]])),
        ("scp", json!(5)),
        ("scp", json!({"operations": true})),
        ("scope", json!(true)),
        ("scope", json!({"operations": true})),
        ("customerRef", json!(5)),
        ("customerRef", json!("")),
        ("customerRef", json!("  ")),
        ("customerRef", json!([])),
        ("customerRef", json!({})),
        ("customerRef", json!(true)),
        ("customerRef", json!("x".repeat(65))),
        ("customerRef", json!(" C-1")),
        ("customerRef", json!("a\u{0}b")),
    ];
    let mut all: Vec<_> = wrong
        .into_iter()
        .map(|(name, value)| {
            let shown: String = value.to_string().chars().take(40).collect();
            (format!("{name} {shown}"), signer.token(json!({ name: value })))
        })
        .collect();
    let rest = format!(r#""iss":"{ISSUER}","aud":"{AUDIENCE}","sub":"x""#);
    let head = r#"{"alg":"RS256"}"#;
    let exp = now + 3600;
    for (name, payload) in [
        ("exp with too many digits", format!(r#"{{{rest},"exp":{}}}"#, "9".repeat(30))),
        ("exp null", format!(r#"{{{rest},"exp":null}}"#)),
        ("nbf null", format!(r#"{{{rest},"exp":{exp},"nbf":null}}"#)),
        ("scope null", format!(r#"{{{rest},"exp":{exp},"scope":null}}"#)),
        ("customerRef null", format!(r#"{{{rest},"exp":{exp},"customerRef":null}}"#)),
    ] {
        all.push(named(name, signer.sign(head, payload)));
    }
    all
}
