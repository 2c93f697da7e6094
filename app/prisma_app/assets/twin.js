// The page of a static Space: the app's viewers over views that were computed before. It asks no server for anything:
// views are scripts beside it, which also load where the page is opened from a disk.
// INDEX (data/index.js): {tabs: [{name, title, help, viewer}], models: [{name, commit, steps: [{step, folder}],
// images: [{number, caption}], thumbnails, charts}]}. A view's script calls VIEW(file, {tab: {facts, arrays}}).
"use strict";

(() => {
  const element = (id) => document.getElementById(id);
  const trouble = (words) => {
    element("pz-trouble").textContent = words;
    element("pz-trouble").hidden = !words;
  };

  // Views that were loaded, and those who wait for one.
  const loaded = new Map();
  window.VIEW = (file, views) => loaded.set(file, views);
  const fetched = (file) => new Promise((resolve, reject) => {
    if (loaded.has(file)) { resolve(loaded.get(file)); return; }
    const script = node("script", { src: file });
    script.onload = () => (loaded.has(file) ? resolve(loaded.get(file)) : reject(new Error(`${file} holds no view`)));
    script.onerror = () => reject(new Error(`could not load ${file}`));
    document.head.append(script);
  });

  // What is shown: everything else follows from it.
  const asked = new URLSearchParams(location.search + location.hash.replace("#", "&"));
  const place = (found, otherwise) => (found >= 0 ? found : otherwise);
  const state = { model: place(INDEX.models.findIndex(({ name }) => name === asked.get("model")), 0) };
  const model = () => INDEX.models[state.model];
  state.step = place(model().steps.findIndex(({ step }) => String(step) === asked.get("step")), model().steps.length - 1);
  state.image = place(model().images.findIndex(({ number }) => String(number) === asked.get("image")), 0);
  state.tab = place(INDEX.tabs.findIndex(({ name }) => name === asked.get("view")), 0);

  const shown = (name) => (values) => { window.__prisma = { ...window.__prisma, [name]: values }; };
  const set = (values) => { Object.assign(state, values); show(); };
  const root = (id) => element(id).querySelector(".pz-root");
  const slider = steps(root("pz-steps"), { state: shown("steps"), choose: (step) => set({ step }) });
  const row = images(root("pz-images"), { state: shown("images"), choose: (image) => set({ image }), draw: () => {} });

  const made = { attention, lens, effects, curves };
  const panels = INDEX.tabs.map(({ name, title, help, viewer }, index) => {
    const refused = node("p", { class: "tw-refused", role: "status" });
    const inside = node("div", { class: "pz-root" });
    const panel = node("section", { id: `pz-${name}`, role: "tabpanel", "aria-label": title }, node("p", { class: "tw-help" }, help), refused, inside);
    element("pz-panels").append(panel);
    const onkeydown = (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!move) return;
      set({ tab: (index + move + INDEX.tabs.length) % INDEX.tabs.length });
      panels[state.tab].button.focus();
    };
    const button = node("button", { type: "button", role: "tab", "aria-controls": panel.id, onclick: () => set({ tab: index }), onkeydown }, title);
    document.querySelector(".tw-tabs").append(button);
    return { panel, button, refused, inside, view: made[viewer](inside, { state: shown(name) }) };
  });

  INDEX.models.forEach(({ name }, index) => element("pz-model").append(option(index, name)));
  element("pz-model").addEventListener("change", ({ target }) => {
    const [step, number] = [model().steps[state.step].step, model().images[state.image].number];
    state.model = Number(target.value);
    const { steps: there, images: pictures } = model();
    set({
      step: place(there.findIndex((entry) => entry.step === step), there.length - 1),
      image: place(pictures.findIndex((entry) => entry.number === number), 0),
    });
  });

  const turn = latest();
  function show() {
    const { steps: there, images: pictures, thumbnails, charts, name, commit } = model();
    const [step, image, tab] = [there[state.step], pictures[state.image], INDEX.tabs[state.tab]];
    element("pz-model").value = state.model;
    element("pz-pin").textContent = `${name} at commit ${commit}.`;
    slider.update({ facts: { steps: there.map((entry) => entry.step), chosen: state.step } });
    const names = pictures.map(({ caption }) => caption);
    row.update({ facts: { title: "Image", names, chosen: state.image, caption: image.caption, drawable: false }, arrays: { images: thumbnails } });
    panels.forEach(({ panel, button }, index) => {
      panel.hidden = index !== state.tab;
      button.setAttribute("aria-selected", index === state.tab);
      button.tabIndex = index === state.tab ? 0 : -1;
    });
    const where = { model: name, step: step.step, image: image.number, view: tab.name };
    history.replaceState(history.state, "", `#${new URLSearchParams(where)}`);
    const current = panels[state.tab];
    if (tab.viewer === "curves") { current.view.update({ facts: { charts, chosen: step.step, where } }); return; }
    turn(async (newest) => {
      const views = await fetched(`${step.folder}/${image.number}.js`);
      if (!newest()) return;
      trouble("");
      const view = views[tab.name];
      current.refused.textContent = view.facts.refused ?? "";
      current.inside.hidden = "refused" in view.facts;
      if (!current.inside.hidden) current.view.update(view);
    }, (error) => trouble(`${error.message}.`));
  }
  show();
})();
