// Before the first paint: the colour scheme chosen last time, so that the page never flashes.
try {
  var choice = localStorage.getItem('nexus-color-scheme') || 'auto'
  var dark = choice === 'dark' || (choice === 'auto' && matchMedia('(prefers-color-scheme: dark)').matches)
  document.documentElement.setAttribute('data-mantine-color-scheme', dark ? 'dark' : 'light')
} catch (_) {}
