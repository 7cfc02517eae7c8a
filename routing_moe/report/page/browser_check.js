// A classic script, in syntax that browsers of any age can read: it runs before the page's modules and shows
// a message where they cannot run. Of all that the page uses, CSS light-dark() came last, in 2024.

(function () {
  var supported =
    "noModule" in document.createElement("script") &&
    window.CSS &&
    window.CSS.supports &&
    window.CSS.supports("color", "light-dark(#000, #fff)");
  if (!supported) document.getElementById("unsupported").hidden = false;
})();
