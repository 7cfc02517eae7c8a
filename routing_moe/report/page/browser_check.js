// A classic script in syntax that every browser can parse. It runs before the page's modules and shows a
// message if they cannot run. The newest feature that the page uses is CSS light-dark(), of 2024.

(function () {
  var supported =
    "noModule" in document.createElement("script") &&
    window.CSS &&
    window.CSS.supports &&
    window.CSS.supports("color", "light-dark(#000, #fff)");
  if (!supported) document.getElementById("unsupported").hidden = false;
})();
