//! Known holes of ingress-nginx, nginx, Traefik and Pingora, one by one: whether they are here.

mod absent;
mod namespaces;
mod requests;
mod texts;

use std::{fs, path::Path};

use crate::support::{
    World,
    client::{Answer, connect, request, send},
};

/// Every hole that is known, with the file and the test that try it.
const HOLES: &[(&str, &str, &str)] = &[
    // ingress-nginx.
    ("CVE-2018-1002104", REQUESTS, "cve_2018_1002104_clients_are_told_nothing_about_us"),
    ("CVE-2019-20372", REQUESTS, "cve_2019_20372_the_body_of_what_is_redirected_is_no_request"),
    ("CVE-2020-8553", NAMESPACES, "cve_2020_8553_passwords_of_one_namespace_open_no_other"),
    (
        "CVE-2021-25742",
        "src/routes/annotations/snippet/read.rs",
        "cve_2021_25742_anything_else_refuses_the_snippet_with_its_line",
    ),
    (
        "CVE-2021-25742",
        "tests/it/annotations/snippets.rs",
        "a_snippet_with_anything_else_is_refused_whole_and_its_line_is_named",
    ),
    (
        "CVE-2021-25745",
        "src/routes/annotations/redirect.rs",
        "cve_2021_25745_nothing_but_a_url_gets_in",
    ),
    ("CVE-2021-25745", TEXTS, PATHS),
    ("CVE-2021-25746", TEXTS, VALUES),
    ("CVE-2021-25748", TEXTS, PATHS),
    ("CVE-2022-4886", TEXTS, PATHS),
    ("CVE-2023-5043", TEXTS, VALUES),
    ("CVE-2023-5044", TEXTS, VALUES),
    ("CVE-2024-7646", TEXTS, VALUES),
    ("CVE-2025-1097", TEXTS, VALUES),
    ("CVE-2025-1098", TEXTS, VALUES),
    ("CVE-2025-1974", ABSENT, WEBHOOK),
    ("CVE-2025-24513", NAMESPACES, "cve_2025_24513_a_secrets_name_leads_out_of_no_namespace"),
    (
        "CVE-2025-24514",
        "src/routes/annotations/external.rs",
        "cve_2025_24514_a_url_is_one_and_nothing_else",
    ),
    ("CVE-2025-15566", TEXTS, ASKED),
    ("CVE-2026-1580", TEXTS, ASKED),
    ("CVE-2026-24512", TEXTS, PATHS),
    (
        "CVE-2026-24513",
        "tests/it/annotations/auth.rs",
        "cve_2026_24513_an_error_page_never_lets_in_who_was_kept_out",
    ),
    ("CVE-2026-24514", ABSENT, WEBHOOK),
    (
        "CVE-2026-3288",
        "src/routes/annotations/rewrite.rs",
        "cve_2026_3288_a_target_is_a_path_and_nothing_else",
    ),
    ("CVE-2026-4342", TEXTS, VALUES),
    // nginx itself.
    (
        "CVE-2026-42945",
        "src/routes/annotations/template.rs",
        "nginx_rift_cve_2026_42945_expansion_is_bounded",
    ),
    (
        "CVE-2026-9256",
        "src/routes/annotations/template.rs",
        "nginx_rift_cve_2026_42945_expansion_is_bounded",
    ),
    (
        "CVE-2026-42926",
        "tests/it/attacks2.rs",
        "cve_2026_42926_what_http1_could_not_say_does_not_become_http1",
    ),
    ("CVE-2026-42055", ABSENT, UNSAFE),
    ("CVE-2026-42530", ABSENT, UNSAFE),
    // Traefik.
    (
        "CVE-2025-66491",
        "tests/it/upstream_tls.rs",
        "cve_2025_66491_a_certificate_counts_if_and_only_if_it_is_to_be_verified",
    ),
    // Pingora.
    (
        "CVE-2025-4366",
        "tests/it/upstreams.rs",
        "cve_2025_4366_an_early_answer_to_an_unfinished_upload_is_passed_on_and_nothing_is_reused",
    ),
    (
        "CVE-2026-2833",
        "tests/it/websocket.rs",
        "cve_2026_2833_a_request_behind_a_refused_upgrade_is_a_request_of_its_own",
    ),
    ("CVE-2026-2835", REQUESTS, "cve_2026_2835_a_body_has_one_end_or_is_refused"),
    ("CVE-2026-2836", REQUESTS, "cve_2026_2836_who_is_let_in_to_one_host_is_not_let_in_to_another"),
    // HTTP/2, whoever speaks it.
    ("CVE-2019-9512", "tests/it/floods.rs", "attack_ping_and_settings_floods_hold_up_nobody_else"),
    ("CVE-2019-9515", "tests/it/floods.rs", "attack_ping_and_settings_floods_hold_up_nobody_else"),
    ("CVE-2019-9518", "tests/it/floods.rs", "attack_empty_data_flood_ends_the_connection"),
    (
        "CVE-2023-44487",
        "tests/it/floods.rs",
        "attack_rapid_reset_cve_2023_44487_ends_the_connection",
    ),
    (
        "CVE-2024-27316",
        "tests/it/floods.rs",
        "attack_continuation_flood_cve_2024_27316_ends_the_connection",
    ),
    (
        "CVE-2025-8671",
        "tests/it/floods.rs",
        "attack_made_you_reset_cve_2025_8671_ends_the_connection",
    ),
];

const ABSENT: &str = "tests/it/cve/absent.rs";
const NAMESPACES: &str = "tests/it/cve/namespaces.rs";
const REQUESTS: &str = "tests/it/cve/requests.rs";
const TEXTS: &str = "tests/it/cve/texts.rs";

const ASKED: &str = "cve_2025_15566_cve_2026_1580_who_is_asked_is_told_fields_and_nothing_else";
const PATHS: &str = "cve_2021_25748_and_its_heirs_a_path_is_a_path_or_refused";
const UNSAFE: &str = "cve_2026_42055_no_code_of_the_role_is_unsafe";
const VALUES: &str = "cve_2021_25746_and_its_heirs_no_annotation_ends_what_it_stands_in";
const WEBHOOK: &str = "cve_2025_1974_there_is_no_webhook";

/// Of "ann:one".
const ANN: &str = "Basic YW5uOm9uZQ==";

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(path).unwrap()
}

async fn ask(world: &World, host: &str, name: &'static str, value: &str) -> Answer {
    let mut request = request(host, "/");
    request.headers_mut().insert(name, value.parse().unwrap());
    send(&mut connect(world.http()).await, request).await
}

/// With its attribute: what is commented out tries nothing.
#[test]
fn every_known_hole_has_a_test() {
    const BEGINS: [&str; 4] = [
        "\n#[test]\nfn",
        "\n#[tokio::test]\nasync fn",
        "\n    #[test]\n    fn",
        "\n    #[tokio::test]\n    async fn",
    ];
    for (cve, path, test) in HOLES {
        let text = file(path);
        let is_test = BEGINS.iter().any(|begin| text.contains(&format!("{begin} {test}(")));
        assert!(is_test, "{cve}: {path}: {test}");
    }
}
