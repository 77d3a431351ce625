import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { brotliCompressSync, constants, gzipSync } from 'node:zlib'
import { convertCssVariables, DEFAULT_THEME, defaultCssVariablesResolver, mergeMantineTheme } from '@mantine/core'
import react from '@vitejs/plugin-react'
import { defineConfig, type Plugin } from 'vite'
import { theme } from './src/ui/theme.ts'

/** Puts a .gz and a .br beside every asset, so that the server only has to choose one. */
function precompress(): Plugin {
  let folder = ''
  return {
    name: 'precompress',
    apply: 'build',
    configResolved(config) {
      folder = join(config.build.outDir, 'assets')
    },
    closeBundle() {
      for (const name of readdirSync(folder)) {
        if (!/\.(js|css|svg|json)$/.test(name)) continue
        const file = join(folder, name)
        const content = readFileSync(file)
        if (content.length < 1024) continue
        writeFileSync(`${file}.gz`, gzipSync(content, { level: 9 }))
        writeFileSync(
          `${file}.br`,
          brotliCompressSync(content, { params: { [constants.BROTLI_PARAM_SIZE_HINT]: content.length } }),
        )
      }
    },
  }
}

/**
 * Gives the theme's CSS variables as the style sheet `virtual:theme.css`. Mantine would write them into a `<style>` tag
 * at run time, which the server's content security policy forbids.
 */
function themeSheet(): Plugin {
  const name = 'virtual:theme.css'
  return {
    name: 'theme-sheet',
    resolveId: (id) => (id === name ? `/${name}` : null),
    load: (id) =>
      id === `/${name}`
        ? convertCssVariables(defaultCssVariablesResolver(mergeMantineTheme(DEFAULT_THEME, theme)))
        : null,
  }
}

/** The server writes `<base href>` into the page; so does `npm run dev`. */
function baseInDevelopment(): Plugin {
  return {
    name: 'base-in-development',
    apply: 'serve',
    transformIndexHtml: (html) => html.replace('<head>', '<head><base href="/" />'),
  }
}

export default defineConfig({
  base: './',
  plugins: [react(), themeSheet(), baseInDevelopment(), precompress()],
  build: { target: 'es2022', cssCodeSplit: true, assetsInlineLimit: 0, sourcemap: false, reportCompressedSize: false },
  server: { proxy: { '/api': process.env['NEXUS_DEV_SERVER'] ?? 'http://127.0.0.1:8000' } },
})
