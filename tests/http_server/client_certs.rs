//! Every policy for client certificates, against every kind of client.

use crate::certificates::*;
use crate::support::*;
use axum::extract::Extension;
use axum::routing::get as on_get;
use rcgen::SanType;
use skmem_exporter::config::ListenAddress;
use skmem_exporter::http::limits::{Limits, Refusals};
use skmem_exporter::http::{Client as Asking, Server, WebConfigFile, bind, serve};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

fn names(dns: &str) -> Vec<SanType> {
    vec![SanType::DnsName(dns.try_into().unwrap())]
}

#[tokio::test]
async fn policies() {
    let place = Place::new();
    let ours = place.authority.client(names("prometheus.example"));
    let foreign = Authority::new().client(names("prometheus.example"));
    // Somebody else's certificate, without its key.
    let stolen = Pair { cert: ours.cert.clone(), key: foreign.key.clone() };
    // Signed by us, but not for clients.
    let wrong_use = place.authority.server();
    for (policy, none, good, unknown) in [
        ("NoClientCert", true, true, true),
        ("RequestClientCert", true, true, true),
        ("RequireAnyClientCert", false, true, true),
        ("RequireClientCert", false, true, true),
        ("VerifyClientCertIfGiven", true, true, false),
        ("RequireAndVerifyClientCert", false, true, false),
    ] {
        let kind = format!("client_auth_type: {policy}");
        let lines = [kind.as_str(), "client_ca_file: ca.pem"];
        let lines = if policy == "NoClientCert" { &lines[..1] } else { &lines[..] };
        let running = Setup { web_config: Some(place.tls(lines)), ..Setup::default() }.start().await;
        for versions in [&OLD, &NEW] {
            let served = async |pair: Option<&Pair>| {
                let client = Client { pair: pair.cloned(), versions, ..place.client() };
                client.is_served(running.address).await
            };
            assert_eq!(served(None).await, none, "{policy}, none");
            assert_eq!(served(Some(&ours)).await, good, "{policy}, ours");
            assert_eq!(served(Some(&foreign)).await, unknown, "{policy}, foreign");
            assert_eq!(served(Some(&wrong_use)).await, unknown, "{policy}, wrong use");
            assert_eq!(served(Some(&stolen)).await, policy == "NoClientCert", "{policy}, stolen");
        }
    }
}

/// Where no authority is named, those count that the host trusts, and ours is none of them.
#[tokio::test]
async fn authorities_of_the_host() {
    let place = Place::new();
    let config = place.tls(&["client_auth_type: VerifyClientCertIfGiven"]);
    match WebConfigFile::load(&config) {
        Ok(_) => {
            let server = Setup { web_config: Some(config), ..Setup::default() }.start().await;
            let pair = Some(place.authority.client(Vec::new()));
            assert!(place.client().is_served(server.address).await);
            assert!(!Client { pair, ..place.client() }.is_served(server.address).await);
        }
        // A host, or an image, without any.
        Err(error) => assert!(error.to_string().contains("needs client_ca or client_ca_file"), "{error}"),
    }
}

#[tokio::test]
async fn allowed_names() {
    let place = Place::new();
    let kinds = [
        ("prometheus.example", names("prometheus.example")),
        ("192.0.2.7", vec![SanType::IpAddress(IpAddr::from([192, 0, 2, 7]))]),
        ("2001:db8::7", vec![SanType::IpAddress("2001:db8::7".parse().unwrap())]),
        ("ops@example.org", vec![SanType::Rfc822Name("ops@example.org".try_into().unwrap())]),
        (
            "spiffe://example.org/scraper",
            vec![SanType::URI("spiffe://example.org/scraper".try_into().unwrap())],
        ),
    ];
    for (allowed, _) in &kinds {
        for policy in ["RequireAndVerifyClientCert", "VerifyClientCertIfGiven", "RequireAnyClientCert"] {
            let lines = [
                &format!("client_auth_type: {policy}"),
                "client_ca_file: ca.pem",
                &format!("client_allowed_sans: [nobody.example, \"{allowed}\"]"),
            ];
            let server = Setup { web_config: Some(place.tls(&lines)), ..Setup::default() }.start().await;
            for (name, sans) in &kinds {
                let client = Client { pair: Some(place.authority.client(sans.clone())), ..place.client() };
                assert_eq!(
                    client.is_served(server.address).await,
                    name == allowed,
                    "{policy} {name} {allowed}"
                );
            }
            let nameless = Client { pair: Some(place.authority.client(Vec::new())), ..place.client() };
            assert!(!nameless.is_served(server.address).await);
            assert!(!place.client().is_served(server.address).await, "{policy}: who shows none is nobody");
        }
    }
}

/// A server that says who it thinks is asking.
async fn who_is_asking(web_config: Option<WebConfigFile>) -> SocketAddr {
    let router = axum::Router::new().route(
        "/-/ready",
        on_get(async |Extension(client): Extension<Asking>| {
            format!("{} {} {}", client.peer.ip(), client.authenticated, client.trusted())
        }),
    );
    let server =
        Server { router, web_config, limits: Limits::default(), refusals: Arc::new(Refusals::default()) };
    let listeners = bind(&[ListenAddress::AllInterfaces { port: 0 }]).await.unwrap();
    let port = listeners[0].local_addr().unwrap().port();
    tokio::spawn(serve(listeners, server, std::future::pending()));
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[tokio::test]
async fn requests_say_who_asks() {
    let ready = get("/-/ready", "");
    let plain = async |address, headers| {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        exchange(stream, &get("/-/ready", headers)).await.text()
    };
    let address = who_is_asking(None).await;
    assert_eq!(plain(address, "").await, "127.0.0.1 false true");
    assert_eq!(plain(address, "X-Forwarded-For: 192.0.2.1\r\n").await, "127.0.0.1 false false");

    let place = Place::new();
    let hash = bcrypt::hash("secret", 4).unwrap();
    let config = place.write("web.yml", &format!("basic_auth_users: {{alice: {hash}}}\n"));
    let address = who_is_asking(Some(WebConfigFile::load(config).unwrap())).await;
    assert_eq!(plain(address, "Authorization: Basic YWxpY2U6c2VjcmV0\r\n").await, "127.0.0.1 true true");

    let pair = Some(place.authority.client(Vec::new()));
    for (policy, authenticated) in [("RequestClientCert", false), ("VerifyClientCertIfGiven", true)] {
        let config = place.tls(&[&format!("client_auth_type: {policy}"), "client_ca_file: ca.pem"]);
        let address = who_is_asking(Some(WebConfigFile::load(config).unwrap())).await;
        let with = Client { pair: pair.clone(), ..place.client() };
        let answer = exchange(with.connect(address).await.unwrap(), &ready).await.text();
        assert_eq!(answer, format!("127.0.0.1 {authenticated} true"), "{policy}");
        let answer = exchange(place.client().connect(address).await.unwrap(), &ready).await.text();
        assert_eq!(answer, "127.0.0.1 false true", "{policy}");
    }
}
