//! Who may notify of what.

use super::*;

#[tokio::test]
async fn notifications_are_taken_from_the_nef_alone_and_only_where_one_is_awaited() {
    let (net, mut nef, exposed) = net_and_nef().await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    alice.send(&storable("alice", "meter", "1")).await;
    let trigger = nef.trigger().await;
    until(|| net.outcomes("triggers", "taken") == 1).await;
    let destination = destination(&trigger);
    let expired = json!({"transaction": "/1", "result": "EXPIRED"});

    let stranger =
        SbiClientConfig { tls: pki::files(net.directory.path(), "weather"), limits: ClientLimits::default() };
    let stranger = SbiClient::new(stranger).unwrap();
    let refused = notify_as(&stranger, destination, &expired).await;
    assert_eq!(refused, (403, "NOTIFIER_NOT_ALLOWED".to_owned()));

    let (root, token) = destination.rsplit_once('/').unwrap();
    let guess = "0123456789abcdef0123456789abcdef";
    let elsewhere = format!("{}/reachability/{token}", root.rsplit_once('/').unwrap().0);
    for (uri, status, cause) in [
        (format!("{root}/{guess}"), 404, "NOTIFICATION_NOT_FOUND"),
        (format!("{root}/x"), 404, "NOTIFICATION_NOT_FOUND"),
        (elsewhere, 404, "NOTIFICATION_NOT_FOUND"),
        (root.to_owned(), 404, "RESOURCE_URI_STRUCTURE_NOT_FOUND"),
    ] {
        assert_eq!(notify_as(&nef.client, &uri, &expired).await, (status, cause.to_owned()), "{uri}");
    }
    for (body, cause) in [
        (json!({"transaction": "/1"}), "MANDATORY_IE_MISSING"),
        (json!({"transaction": "/1", "result": 7}), "MANDATORY_IE_INCORRECT"),
        (json!([]), "MANDATORY_IE_INCORRECT"),
        (json!("x"), "MANDATORY_IE_INCORRECT"),
    ] {
        let (status, told) = notify_as(&nef.client, destination, &body).await;
        assert_eq!((status, told.as_str()), (400, cause), "{body}");
    }
    let long = json!({"transaction": "x".repeat(100_000), "result": "EXPIRED"});
    assert_eq!(nef.notify(destination, &long).await, 413);
    let gotten = nef.client.get::<Value>(destination).await.unwrap_err();
    assert_eq!(gotten.problem().unwrap().status, Some(405));
    assert_eq!((net.outcomes("notifications", "refused"), net.outcomes("notifications", "awaited")), (1, 0));

    // None of it did anything.
    nef.was_asked_nothing_more();
    assert_eq!(nef.report(&trigger, "SUCCESS").await, 204);
    exposed.stop().await;
}

#[tokio::test]
async fn what_comes_where_notifications_are_taken_is_counted_by_connection_and_status() {
    let (net, mut nef, exposed) = net_and_nef().await;
    let mut registry = prometheus_client::registry::Registry::default();
    net.core.reachability.metrics.register(&mut registry);
    let samples = || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    };
    let counted = |sample: &str| samples().lines().any(|line| line == sample);
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    alice.send(&storable("alice", "meter", "1")).await;
    let trigger = nef.trigger().await;
    assert!(!counted("notifications_connections 1"));
    assert_eq!(nef.report(&trigger, "SUCCESS").await, 204);
    until(|| counted("notifications_connections 1")).await;
    let guess = destination(&trigger).rsplit_once('/').unwrap().0.to_owned() + "/0123456789abcdef0123456789abcdef";
    for _ in 0..2 {
        assert_eq!(nef.notify(&guess, &json!({"transaction": "/1", "result": "EXPIRED"})).await, 404);
    }
    until(|| counted("notifications_requests_total{status=\"204\"} 1")).await;
    until(|| counted("notifications_requests_total{status=\"404\"} 2")).await;

    // One that goes before it has shown anything.
    drop(tokio::net::TcpStream::connect(exposed.server.local_addr()).await.unwrap());
    until(|| counted("notifications_connections_refused_total{reason=\"tls\"} 1")).await;
    exposed.stop().await;
    until(|| counted("notifications_connections 0")).await;
}
