// `ast`: expressions are interpreted, since the page's policy forbids to evaluate text as code.
// To those who hear the page, a figure is one image with one description.
const specs = JSON.parse(document.getElementById("specs").textContent);
const options = {actions: false, renderer: "svg", ast: true};
for (const place of document.querySelectorAll("[data-figure]")) {
  vegaEmbed(place, specs[place.dataset.figure], options)
    .then(() => {
      place.querySelector("svg").setAttribute("aria-hidden", "true");
      place.setAttribute("data-drawn", "");
    })
    .catch((error) => {
      place.textContent = `This figure could not be drawn: ${error.message}`;
      console.error(error);
    });
}
