// Follows the page that is shown, and filters lists while one types. Without it forms and links do.
"use strict";
(() => {
  const here = () => location.pathname + location.search;
  let [stream, timer] = [null, 0];

  // Changes the old tree into the fresh one, so that scroll, selection and focus stay where they are.
  const morph = (old, fresh) => {
    if (old.nodeName !== fresh.nodeName) return old.replaceWith(fresh);
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    const [before, after] = [[...old.childNodes], [...fresh.childNodes]];
    before.slice(after.length).forEach((node) => node.remove());
    after.forEach((node, at) => (at < before.length ? morph(before[at], node) : old.append(node)));
  };

  const show = (part) => {
    for (const [id, text] of Object.entries(part)) {
      const place = document.getElementById(id);
      const fresh = place.cloneNode(false);
      fresh.innerHTML = text;
      morph(place, fresh);
    }
    document.body.classList.remove("lost");
  };

  const follow = () => {
    clearTimeout(timer);
    stream?.close();
    stream = null;
    // Nobody looks: nothing is to be computed.
    if (document.hidden) return;
    stream = new EventSource("/events?of=" + encodeURIComponent(here()));
    stream.onmessage = (event) => show(JSON.parse(event.data));
    stream.onerror = () => {
      document.body.classList.add("lost");
      // A browser tries again where a connection broke, but not where it was refused.
      if (stream.readyState === EventSource.CLOSED) timer = setTimeout(follow, 10_000);
    };
  };

  let asking = null;
  const filter = async (form) => {
    asking?.abort();
    asking = new AbortController();
    const given = [...new FormData(form)].filter(([, value]) => value !== "");
    const query = new URLSearchParams(given).toString();
    const path = new URL(form.action).pathname + (query && "?" + query);
    try {
      const answer = await fetch("/part?of=" + encodeURIComponent(path), { signal: asking.signal });
      if (!answer.ok) return;
      show(await answer.json());
      history.replaceState(null, "", path);
      later();
    } catch (error) {
      if (error.name !== "AbortError") document.body.classList.add("lost");
    }
  };

  // The stream goes with what is shown once the typing has come to rest.
  const later = () => {
    clearTimeout(timer);
    stream?.close();
    timer = setTimeout(follow, 400);
  };

  for (const form of document.querySelectorAll("form[data-filter]")) {
    form.addEventListener("input", () => filter(form));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      filter(form);
    });
  }
  document.addEventListener("visibilitychange", follow);
  window.addEventListener("pagehide", () => stream?.close());
  window.addEventListener("pageshow", (event) => event.persisted && follow());
  follow();
})();
