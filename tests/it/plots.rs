//! Pictures of measurements: what stands where, for whom it can be read, and which rows are drawn.

use super::common::{
    charts::Chart,
    plot::{self, Bar, Colours, DARK, LIGHT, Series},
    report::Row,
};

fn series(name: &str, points: &[(f64, f64)]) -> Series {
    Series { name: name.to_owned(), points: points.to_vec() }
}

/// Values of an attribute, in order.
fn attributes<'a>(svg: &'a str, element: &str, name: &str) -> Vec<&'a str> {
    let opening = format!("<{element}");
    let field = format!(" {name}=\"");
    let elements = svg.split(opening.as_str()).skip(1);
    let within = elements.filter_map(|rest| rest.split('>').next());
    within.filter_map(|tag| tag.split(field.as_str()).nth(1)?.split('"').next()).collect()
}

/// Points of each line, Fairlead's last.
fn places(svg: &str) -> Vec<Vec<(f64, f64)>> {
    let number = |text: &str| text.parse::<f64>().expect("a number");
    let point = |pair: &str| {
        let (x, y) = pair.split_once(',').expect("x,y");
        (number(x), number(y))
    };
    let lines = attributes(svg, "polyline", "points").into_iter();
    lines.map(|points| points.split(' ').map(point).collect()).collect()
}

/// Ends where something is open that was not closed.
fn assert_well_formed(svg: &str) {
    let mut open = vec![];
    for tag in svg.split('<').skip(1) {
        let (tag, rest) = tag.split_once('>').expect("a tag has an end");
        assert!(!rest.contains('>'), "a bare > behind <{tag}>");
        let name = tag.split(' ').next().unwrap_or_default();
        match name.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "{svg}"),
            None if tag.ends_with('/') => {}
            None => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?} stay open");
}

#[test]
fn costs_over_decades_have_logarithmic_axes_and_small_ones_begin_at_zero() {
    let wide = [series("fairlead", &[(1e3, 10.0), (1e4, 100.0), (1e5, 1000.0)])];
    let svg = plot::lines("t", "Services", "ms", &wide);
    assert_well_formed(&svg);
    let line = &places(&svg)[0];
    let steps: Vec<(f64, f64)> =
        line.windows(2).map(|two| (two[1].0 - two[0].0, two[0].1 - two[1].1)).collect();
    assert!((steps[0].0 - steps[1].0).abs() < 0.2 && (steps[0].1 - steps[1].1).abs() < 0.2);
    assert!(steps[0].0 > 50.0 && steps[0].1 > 50.0, "to the right and up: {steps:?}");
    for tick in [">10<", ">100<", ">1,000<", ">10,000<", ">100,000<", ">ms<", ">Services<"] {
        assert!(svg.contains(tick), "{tick}: {svg}");
    }
    let narrow = [series("fairlead", &[(1e3, 2.0), (1e4, 3.0)])];
    let svg = plot::lines("t", "Services", "us", &narrow);
    assert!(svg.contains(">0<"), "{svg}");
    let line = &places(&svg)[0];
    let grid = attributes(&svg, "line", "y1").into_iter().filter_map(|y| y.parse::<f64>().ok());
    let zero = grid.fold(0.0, f64::max);
    let ratio = (zero - line[1].1) / (zero - line[0].1);
    assert!((ratio - 1.5).abs() < 0.01, "3 is half as far again from zero as 2: {ratio}");
}

#[test]
fn what_has_no_place_is_left_out_and_nothing_measured_is_no_panic() {
    let odd = [(1e3, 0.0), (1e4, f64::NAN), (1e5, f64::INFINITY), (1e5, -1.0), (1e4, 5.0)];
    let svg = plot::lines("t", "Services", "ms", &[series("fairlead", &odd)]);
    assert_eq!(places(&svg)[0].len(), 1);
    for empty in [&[][..], &[series("fairlead", &[])][..]] {
        let svg = plot::lines("t", "Services", "ms", empty);
        assert_well_formed(&svg);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
    let bars = [0.0, -1.0, f64::NAN].map(|ratio| Bar { label: "a".to_owned(), ratio });
    assert!(!plot::bars("t", "m", &bars).contains("NaN"));
}

#[test]
fn every_subject_has_a_name_a_colour_and_a_sign_and_nothing_leaves_the_picture() {
    let names =
        ["fairlead", "kube-proxy-nft", "kube-proxy-iptables", "no-proxy", "direct", "a longer one"];
    let all: Vec<Series> = names
        .iter()
        .zip(1..)
        .map(|(name, n)| series(name, &[(1e3, f64::from(n)), (5e4, 2e4)]))
        .collect();
    let svg = plot::lines("t", "Services", "ms", &all);
    assert_well_formed(&svg);
    for (n, name) in names.iter().enumerate() {
        assert!(svg.contains(&format!(">{name}<")), "{name}");
        assert!(svg.contains(&format!("class=\"f{n}\"")), "a sign of {name}");
    }
    assert_eq!(attributes(&svg, "polyline", "class").last(), Some(&"line l0 own"), "on top");
    let [width, height] = ["width", "height"].map(|side| {
        let whole = svg.split('>').next().expect("a tag");
        let value =
            whole.split(&format!(" {side}=\"")).nth(1).and_then(|rest| rest.split('"').next());
        value.and_then(|value| value.parse::<f64>().ok()).expect("a number")
    });
    for (x, y) in places(&svg).concat() {
        assert!((0.0..=width).contains(&x) && (0.0..=height).contains(&y), "{x},{y}");
    }
    let texts = attributes(&svg, "text", "y");
    assert_eq!(texts.len(), svg.matches("<text ").count());
    for y in texts {
        let y: f64 = y.parse().expect("a number");
        assert!(y > 0.0 && y < height, "{y}");
    }
}

#[test]
fn bars_go_right_where_the_peer_takes_more_and_left_where_it_takes_less() {
    let bars = [("more", 4.0), ("less", 0.5), ("much", 287.1)];
    let bars = bars.map(|(label, ratio)| Bar { label: label.to_owned(), ratio });
    let svg = plot::bars("t", "what it means", &bars);
    assert_well_formed(&svg);
    let middle = attributes(&svg, "line", "x1").last().expect("the line at 1").parse::<f64>();
    let middle = middle.expect("a number");
    let starts = attributes(&svg, "rect", "x").into_iter().filter_map(|x| x.parse::<f64>().ok());
    let starts: Vec<f64> = starts.collect();
    assert!((starts[0] - middle).abs() < 0.2 && (starts[2] - middle).abs() < 0.2, "{starts:?}");
    assert!(starts[1] < middle);
    for shown in [">× 4<", ">× 0.5<", ">× 287<", ">what it means<", ">1<"] {
        assert!(svg.contains(shown), "{shown}: {svg}");
    }
}

#[test]
fn names_with_markup_in_them_stay_names() {
    let evil = [series("<script>&\"", &[(1e3, 1.0)])];
    let svg = plot::lines("a < b & c", "<i>", "\"", &evil);
    assert_well_formed(&svg);
    assert!(!svg.contains("<script") && !svg.contains("<i>"), "{svg}");
    assert!(svg.contains("a &lt; b &amp; c"), "{svg}");
}

/// Relative luminance (WCAG 2.2).
fn luminance(colour: &str) -> f64 {
    let part = |from: usize| {
        let byte = u8::from_str_radix(&colour[from..from + 2], 16).expect("#rrggbb");
        let share = f64::from(byte) / 255.0;
        if share <= 0.04045 { share / 12.92 } else { ((share + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
}

#[test]
fn text_and_lines_stand_out_in_light_and_dark() {
    for scheme in [LIGHT, DARK] {
        let Colours { background, ink, faint, series, .. } = scheme;
        let contrast = |colour: &str| {
            let (one, other) = (luminance(colour) + 0.05, luminance(background) + 0.05);
            one.max(other) / one.min(other)
        };
        for colour in [ink, faint].into_iter().chain(series) {
            // What is asked of text; of graphics it would be 3.
            assert!(contrast(colour) >= 4.5, "{colour} on {background}: {}", contrast(colour));
        }
    }
    let svg = plot::lines("t", "Services", "ms", &[]);
    assert!(svg.contains(LIGHT.background) && svg.contains(DARK.background));
    assert!(svg.contains("prefers-color-scheme:dark"), "{svg}");
}

#[test]
fn rows_are_drawn_by_figure_subject_and_scale() {
    let row = |figure, subject, scale, value: f64| Row::new(figure, subject, scale, "ms", &[value]);
    let rows = [
        row("start_ms", "kube-proxy", 10_000, 400.0),
        row("start_ms", "fairlead", 10_000, 100.0),
        row("start_ms", "fairlead", 1_000, 10.0),
        row("other_ms", "fairlead", 1_000, 7.0),
    ];
    let against = Chart::Against {
        file: "start",
        title: "t",
        figure: "start_ms",
        objects: "Services",
        subjects: &["fairlead", "kube-proxy", "nobody"],
    };
    let svg = against.draw(&rows).expect("rows");
    assert_eq!(places(&svg).iter().map(Vec::len).collect::<Vec<_>>(), [1, 2], "sorted by scale");
    let own = &places(&svg)[1];
    assert!(own[0].0 < own[1].0 && own[0].1 > own[1].1, "{own:?}");
    assert!(!svg.contains("nobody"));
    let ratios = Chart::Ratios {
        file: "ratios",
        title: "t",
        scale: 10_000,
        figures: &["start_ms", "other_ms"],
        peers: &["kube-proxy"],
    };
    let svg = ratios.draw(&rows).expect("rows");
    assert!(svg.contains(">start_ms, kube-proxy<") && svg.contains(">× 4<"), "{svg}");
    assert!(!svg.contains("other_ms"), "it was not measured at this scale");
    let none = Chart::Ratios { file: "", title: "", scale: 1, figures: &["x"], peers: &["y"] };
    assert_eq!(none.draw(&rows), None);
}

/// What others read in target/bench/*.json has to stay there under its name.
const FIGURES: [(&str, &[&str]); 3] = [
    (
        "services",
        &[
            "cold_start_ms",
            "restart_ms",
            "change_to_packet_us_p50",
            "change_to_packet_us_p99",
            "connect_us_p50",
            "connect_us_p99",
            "crr_per_s",
            "udp_rr_per_s",
            "nodeport_gbit_per_s",
            "nodeport_added_us_p50",
            "ns_per_packet_hit",
            "ns_per_packet_miss",
            "ns_per_packet_established",
            "ns_per_packet_rejected",
            "rss_mib",
            "locked_mib",
            "insns_verified",
        ],
    ),
    (
        "dns",
        &[
            "cpu_us_hit",
            "cpu_us_nxdomain",
            "cpu_us_srv",
            "cpu_us_cached_external",
            "cpu_us_ndots_walk",
            "cpu_us_tcp",
            "answers_per_s",
            "latency_us_p99",
            "rss_mib",
            "relist_peak_mib",
            "first_answer_ms",
        ],
    ),
    (
        "ingress",
        &[
            "cpu_us_keepalive",
            "cpu_us_h2",
            "cpu_us_tls_keepalive",
            "cpu_us_tls_handshake",
            "cpu_us_body_1mib",
            "cpu_us_tls_body_1mib",
            "idle_tls_kib",
            "latency_us_p99",
            "route_change_ms_p50",
            "route_change_ms_p99",
            "change_peak_mib",
            "change_failed",
            "rss_mib",
        ],
    ),
];

#[test]
fn figures_that_others_read_are_measured_under_their_names() {
    for (bench, figures) in FIGURES {
        let folder = format!("{}/benches/{bench}", env!("CARGO_MANIFEST_DIR"));
        let files = std::fs::read_dir(&folder).expect("readable").flatten();
        let texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
        let text: String = texts.collect();
        for figure in figures {
            assert!(text.contains(&format!("\"{figure}\"")), "{bench}: {figure}");
        }
    }
}
