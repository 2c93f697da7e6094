// Renders the formulas that the Markdown extension `arithmatex` marks as \( ... \) and \[ ... \], with the KaTeX in this folder.
document.querySelectorAll(".arithmatex").forEach((element) => {
  const text = element.textContent.trim();
  katex.render(text.slice(2, -2), element, { displayMode: text.startsWith("\\["), throwOnError: false });
});
