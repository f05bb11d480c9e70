//! Of which type a text is that no endpoint says: by how its path ends, as nginx's mime.types has it.

use http::HeaderValue;

/// ingress-nginx: default-type.
const USUAL: &str = "text/html";
/// Those that a text may be of.
const TYPES: [(&str, &str); 15] = [
    ("atom", "application/atom+xml"),
    ("css", "text/css"),
    ("htc", "text/x-component"),
    ("jad", "text/vnd.sun.j2me.app-descriptor"),
    ("js", "application/javascript"),
    ("json", "application/json"),
    ("kml", "application/vnd.google-earth.kml+xml"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("mml", "text/mathml"),
    ("rss", "application/rss+xml"),
    ("svg", "image/svg+xml"),
    ("txt", "text/plain"),
    ("wml", "text/vnd.wap.wml"),
    ("xhtml", "application/xhtml+xml"),
    ("xml", "text/xml"),
];

/// What a path's text is.
pub(super) fn type_of(path: &str) -> HeaderValue {
    let name = path.rsplit('/').next().unwrap_or_default();
    // nginx: a name that is nothing but an ending has none.
    let ending = name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()).map(|(_, end)| end);
    let found = TYPES.iter().find(|(end, _)| ending.is_some_and(|e| e.eq_ignore_ascii_case(end)));
    HeaderValue::from_static(found.map_or(USUAL, |(_, media_type)| media_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_of_the_type_its_path_ends_with() {
        for (path, expected) in [
            ("/", "text/html"),
            ("/robots.txt", "text/plain"),
            ("/a.b/config.JSON", "application/json"),
            ("/sitemap.xml", "text/xml"),
            ("/a.txt/b", "text/html"),
            ("/.txt", "text/html"),
            ("/a.txt.gone", "text/html"),
        ] {
            assert_eq!(type_of(path), expected, "{path}");
        }
    }
}
