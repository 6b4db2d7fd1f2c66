//! What may be wrong with one token, whichever of the two it is.

use serde_json::{Value, json};

use super::{
    super::{
        issuer::{AUDIENCE, CLIENT, Issuer, Signer, base64},
        pair::{Draft, now},
    },
    Keys,
};
use crate::support::text;

/// Makes a token that is not good from a draft that is.
type Make = Box<dyn Fn(&Draft) -> String>;

/// Returns where a token's signature begins.
fn signature(token: &str) -> usize {
    token.rfind('.').expect("a token has points") + 1
}

/// Returns every way in which a token can be wrong by itself.
pub(super) fn all(issuer: &Issuer, keys: &Keys) -> Vec<(String, Make)> {
    [claims(issuer), heads(keys), signatures(issuer, keys), texts()].into_iter().flatten().collect()
}

/// Signs a draft after it was changed.
fn edited(name: String, edit: impl Fn(&mut Draft) + 'static) -> (String, Make) {
    let signed = move |draft: &Draft| {
        let mut draft = draft.clone();
        edit(&mut draft);
        draft.sign()
    };
    (name, Box::new(signed))
}

fn claims(issuer: &Issuer) -> Vec<(String, Make)> {
    let soon = (now() + 600).to_string();
    let values = [
        ("exp", Value::Null),
        ("exp", json!(soon)),
        ("exp", json!(0)),
        ("exp", json!(-1)),
        ("exp", json!(now() - 1)),
        ("exp", json!(1e300)),
        ("exp", json!([now() + 600])),
        ("nbf", json!(now() + 3600)),
        ("nbf", json!(soon)),
        ("nbf", json!(-1)),
        ("iat", json!(now() + 3600)),
        ("iat", json!("now")),
        ("iss", Value::Null),
        ("iss", json!("")),
        ("iss", json!("https://evil.example")),
        ("iss", json!(format!("{}/", issuer.url))),
        ("iss", json!(issuer.url.to_uppercase())),
        ("iss", json!([issuer.url])),
        ("iss", json!([issuer.url, "https://evil.example"])),
        ("aud", Value::Null),
        ("aud", json!("")),
        ("aud", json!("other")),
        ("aud", json!([])),
        ("aud", json!(["other"])),
        ("aud", json!({AUDIENCE: true, CLIENT: true})),
        ("aud", json!(7)),
        ("sub", Value::Null),
        ("sub", json!("")),
        ("sub", json!(7)),
        ("sub", json!(["ada"])),
        ("sub", json!("grace")),
        ("sub", json!("Ada")),
        ("sub", json!("ada\u{0}")),
        ("azp", json!("other")),
        ("azp", json!(7)),
        ("typ", json!("Refresh")),
        ("typ", json!("Logout")),
        ("token_use", json!("refresh")),
    ];
    let missing = ["exp", "iss", "aud", "sub"].map(|claim| {
        edited(format!("no {claim}"), move |draft| {
            draft.claims.as_object_mut().expect("claims").remove(claim);
        })
    });
    let wrong = values.into_iter().map(|(claim, value)| {
        edited(format!("{claim} is {value}"), move |draft| draft.claims[claim] = value.clone())
    });
    wrong.chain(missing).collect()
}

fn heads(keys: &Keys) -> Vec<(String, Make)> {
    let values = [
        ("alg", json!("none")),
        ("alg", json!("None")),
        ("alg", json!("HS256")),
        ("alg", json!("RS512")),
        ("alg", json!("PS256")),
        ("alg", json!("ES256")),
        ("alg", json!("rs256")),
        ("alg", json!("")),
        ("alg", Value::Null),
        ("alg", json!(["RS256"])),
        ("kid", json!("")),
        ("kid", json!("unknown")),
        ("kid", json!("ec")),
        ("kid", json!("rsa-2")),
        ("kid", json!("for-encryption")),
        ("kid", json!("secret")),
        ("kid", json!("../../../../dev/null")),
        ("kid", json!("' OR 1=1 --")),
        ("kid", json!("{}%s%n")),
        ("kid", json!(0)),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("x5c", json!("MIIB")),
        ("jwk", keys.unlisted.jwk()),
        ("zip", json!("DEF")),
        ("enc", json!("A128GCM")),
        ("cty", json!("JWT")),
        ("typ", json!("dpop+jwt")),
        ("typ", json!("logout+jwt")),
        ("typ", json!("JOSE")),
    ];
    let wrong = values.into_iter().map(|(field, value)| {
        edited(format!("head has {field} {value}"), move |draft| draft.head[field] = value.clone())
    });
    wrong.collect()
}

fn signatures(issuer: &Issuer, keys: &Keys) -> Vec<(String, Make)> {
    let by = |name: &str, signer: &Signer, algorithm: &'static str| {
        let signer = signer.clone();
        edited(name.into(), move |draft| {
            draft.signer = signer.clone();
            draft.head["alg"] = algorithm.into();
            draft.head["kid"] = signer.kid.clone().into();
        })
    };
    let (unlisted, at_an_address) = (keys.unlisted.clone(), keys.unlisted.clone());
    let url = format!("{}/jwks", issuer.url);
    let public = keys.first.jwk();
    let by_secret = |secret: String| -> (String, Make) {
        let name = format!("signed by {secret} as a secret");
        (name, Box::new(move |draft| by_secret(draft, secret.as_bytes())))
    };
    vec![
        by("another's signature", &keys.unlisted, "RS256"),
        edited("another's key at an address".into(), move |draft| {
            draft.signer = at_an_address.clone();
            draft.head["jku"] = url.clone().into();
            draft.head["x5u"] = url.clone().into();
            draft.head["x5c"] = json!(["MIIB"]);
        }),
        edited("another's key inside".into(), move |draft| {
            draft.signer = unlisted.clone();
            draft.head["jwk"] = unlisted.jwk();
        }),
        by("a curve that is not allowed", &keys.wide, "ES384"),
        by("a key of another curve", &keys.wide, "ES256"),
        by_secret(text(&public["n"])),
        by_secret(public.to_string()),
    ]
}

fn texts() -> Vec<(String, Make)> {
    let mut cases: Vec<(String, Make)> = Vec::new();
    let mut broken = |name: &str, break_it: fn(&Draft, String) -> String| {
        cases.push((name.into(), Box::new(move |draft| break_it(draft, draft.sign()))));
    };
    broken("no signature", |_, token| token[..signature(&token)].into());
    broken("two parts", |_, token| token[..signature(&token) - 1].into());
    broken("four parts", |_, token| format!("{token}.AAAA"));
    broken("five parts", |_, token| format!("{token}.AAAA.AAAA"));
    broken("a point before it", |_, token| format!(".{token}"));
    broken("padding", |_, token| format!("{token}="));
    broken("more signature", |_, token| format!("{token}AAAA"));
    broken("half a signature", |_, token| token[..token.len() - 100].into());
    broken("another character in front", |_, token| format!("A{token}"));
    broken("quotes", |_, token| format!("\"{token}\""));
    broken("another alphabet", |_, token| token.replacen('.', "+/.", 1));
    broken("another bit in the signature", |_, token| {
        let at = signature(&token) + 9;
        let other = if &token[at..=at] == "A" { "B" } else { "A" };
        format!("{}{other}{}", &token[..at], &token[at + 1..])
    });
    broken("changed claims", |draft, token| {
        let mut claims = draft.claims.clone();
        claims["roles"] = json!(["admin"]);
        let parts: Vec<_> = token.split('.').collect();
        format!("{}.{}.{}", parts[0], base64(claims.to_string()), parts[2])
    });
    broken("claims that are no JSON", |draft, _| draft.signer.token(&draft.head.to_string(), "{"));
    broken("claims that are a list", |draft, _| draft.signer.token(&draft.head.to_string(), "[]"));
    broken("claims in another encoding", |draft, _| {
        let signed = draft.claims.to_string();
        draft.signer.token(&draft.head.to_string(), &format!("\u{feff}{signed}"))
    });
    broken("a head that is no JSON", |draft, _| draft.signer.token("{", &draft.claims.to_string()));
    broken("a head that is a list", |draft, _| draft.signer.token("[]", &draft.claims.to_string()));
    broken("two of a claim", |draft, _| {
        let claims = draft.claims.to_string();
        let twice = format!("{{\"sub\":\"grace\",{}", &claims[1..]);
        draft.signer.token(&draft.head.to_string(), &twice)
    });
    broken("two algorithms", |draft, _| {
        let head = draft.head.to_string();
        let twice = format!("{{\"alg\":\"none\",{}", &head[1..]);
        draft.signer.token(&twice, &draft.claims.to_string())
    });
    broken("too long", |draft, _| {
        let mut draft = draft.clone();
        draft.claims["more"] = "x".repeat(16 * 1024).into();
        draft.sign()
    });
    broken("nothing", |_, _| String::new());
    broken("points", |_, _| "..".into());
    broken("a word", |_, _| "dev-ada".into());
    cases
}

/// Signs with what everybody knows, as if it were a secret that is shared.
fn by_secret(draft: &Draft, secret: &[u8]) -> String {
    let mut head = draft.head.clone();
    head["alg"] = "HS256".into();
    let signed = format!("{}.{}", base64(head.to_string()), base64(draft.claims.to_string()));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
    format!("{signed}.{}", base64(aws_lc_rs::hmac::sign(&key, signed.as_bytes())))
}
